"""`vocabtransfer leaderboard`: every method on the same model, tokenizer and text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import column_pair, existing
from .output import JSON_OPTION, print_json, quiet_transformers

if TYPE_CHECKING:
    from vocabtransfer.leaderboard.contest import Contest

DEFAULT_METHODS = ["auto", "trans_tokenization", "pieces", "mean"]


def leaderboard(
    source: str = typer.Option(..., help="Alias, hub id, folder or GGUF file: a causal model, or an encoder."),
    target: str = typer.Option(..., help="The target language: name, ISO code, BCP 47 tag or endonym."),
    parallel: list[Path] = typer.Option(..., help="Parallel corpus; its last tenth is held out. Repeatable."),
    columns: str | None = typer.Option(None, help="The two columns of a TSV, counted from 0: 1,2."),
    held_out: list[Path] = typer.Option([], help="Held-out text (encoders: pairs) instead of the corpus's end."),
    methods: list[str] = typer.Option(
        DEFAULT_METHODS, "--method", help="METHOD, METHOD+calibrate, METHOD+norm=script; all of them with `all`."
    ),
    tokenizer: Path | None = typer.Option(None, help="An existing target tokenizer."),
    vocab_size: int | None = typer.Option(None, min=1, help="Size of the trained vocabulary."),
    donor: str | None = typer.Option(None, help="A model with rows for the target tokens, for methods that use one."),
    updates: str = typer.Option("50,200", help="When to measure besides at once; 0 for no training."),
    batch_tokens: int = typer.Option(512, min=1, help="Tokens of an update."),
    learning_rate: float = typer.Option(3e-4, help="Of the tables."),
    seeds: int = typer.Option(1, min=1, help="How many seeds; with several the spread is shown."),
    max_bytes: int = typer.Option(40_000, min=1, help="Held-out bytes to score."),
    results: Path | None = typer.Option(None, help="Keep finished rows in this JSON file and go on from them."),
    plot: Path | None = typer.Option(None, help="Draw the curves into this file (.svg, .png or .pdf)."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare initialisers: bits per byte at once and after short trainings of the tables; retrieval for encoders.

    Example: `vocabtransfer leaderboard --source smollm2 --target dutch --parallel en-nl.tsv.gz --results nl.json`
    """
    from vocabtransfer.leaderboard.contest import Entry, run_contest, summary
    from vocabtransfer.leaderboard.plot import draw

    quiet_transformers()
    from vocabtransfer.initialization import METHODS, Need

    with show_progress(not as_json):
        contest = _contest(
            source, target, existing(parallel, "--parallel"), columns, existing(held_out, "--held-out"),
            tokenizer, vocab_size, donor, _numbers(updates), batch_tokens, learning_rate, max_bytes,
        )  # fmt: skip
        if methods == ["all"]:
            methods = [name for name, method in METHODS.items() if contest.donor or Need.DONOR not in method.needs]
        entries = [Entry.parse(text) for text in methods]
        rows = run_contest(contest, entries, seeds=range(seeds), results=results)
    table = summary(rows)
    if plot is not None:
        draw(table, plot)
    facts = {"source": contest.source.name, "pairs": len(contest.pairs), "vocabulary": len(contest.tokenizer)}
    if as_json:
        print_json({**facts, "methods": table})
    else:
        _print(table)


def _contest(
    source: str,
    target: str,
    parallel: tuple[Path, ...],
    columns: str | None,
    held_out: tuple[Path, ...],
    tokenizer: Path | None,
    vocab_size: int | None,
    donor: str | None,
    updates: tuple[int, ...],
    batch_tokens: int,
    learning_rate: float,
    max_bytes: int,
) -> "Contest":
    """Read everything that the methods are given."""
    from vocabtransfer.alignment.aligner import count_words
    from vocabtransfer.alignment.corpora import read_parallel
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.evaluation import read_documents
    from vocabtransfer.languages import find_language
    from vocabtransfer.leaderboard.contest import Contest, split_corpus
    from vocabtransfer.pipeline.build import default_vocab_size
    from vocabtransfer.surgery.transfer import target_words
    from vocabtransfer.tokenization.load import load_tokenizer
    from vocabtransfer.tokenization.train import train_tokenizer

    language, english = find_language(target), find_language("en")
    checkpoint = open_checkpoint(source)
    pairs: Sequence[tuple[str, str]] = list(
        read_parallel(parallel, columns=column_pair(columns), source=english, target=language)
    )
    test: list[str] = []
    test_pairs: Sequence[tuple[str, str]] = []
    if held_out and checkpoint.continues_text:
        test = list(read_documents(held_out))
    elif held_out:
        test_pairs = list(read_parallel(held_out, columns=column_pair(columns), source=english, target=language))
    else:
        pairs, test_pairs, test = split_corpus(pairs)
    table = count_words(pairs)
    if tokenizer is not None:
        own = load_tokenizer(existing([tokenizer], "--tokenizer")[0])
    else:
        size = vocab_size or default_vocab_size(target_words(table))
        own = train_tokenizer([text for _, text in pairs], like=checkpoint.tokenizer, vocab_size=size)
    return Contest(
        source=checkpoint,
        tokenizer=own,
        pairs=pairs,
        table=table,
        test=test,
        test_pairs=test_pairs[:1000],
        donor=open_checkpoint(donor) if donor else None,
        updates=updates,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        max_bytes=max_bytes,
    )


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--updates takes numbers such as 50,200, not {text!r}.")
    return tuple(sorted({int(part) for part in parts} - {0}))


def _print(rows: list[dict[str, Any]]) -> None:
    keys = list(rows[0]["scores"]) if rows else []
    several = any(row["seeds"] > 1 for row in rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for key in keys:
        table.add_column(f"bits/byte after {key}" if key.isdigit() else key, justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("MB", justify="right")
    for row in rows:
        cells = [f"{row['scores'][key]:.3f}" + (f" ±{row['spread'][key] / 2:.3f}" if several else "") for key in keys]
        table.add_row(row["method"], *cells, f"{row['seconds']:.1f}", f"{row['megabytes']:,}")
    Console(highlight=False, markup=False).print(table)
