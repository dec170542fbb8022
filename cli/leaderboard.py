"""`vocabtransfer leaderboard`: every method on the same model, tokenizer and text."""

from pathlib import Path
from typing import Any, cast

import typer
from rich.console import Console
from rich.table import Table

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import COLUMNS_HELP, DEVICE, FIELD, MEMORY, RUNNING, column_pair, existing, memory_bytes
from .output import JSON_OPTION, print_json, quiet_transformers

DEFAULT_METHODS = ["auto", "trans_tokenization", "pieces", "mean"]


def leaderboard(
    source: str = typer.Option(..., help="Alias, hub id, folder or GGUF file: a causal model, or an encoder."),
    target: str = typer.Option(..., help="The target language: name, ISO code, BCP 47 tag or endonym."),
    parallel: list[Path] = typer.Option(..., help="Parallel corpus; its last tenth is held out. Repeatable."),
    columns: str | None = typer.Option(None, help=COLUMNS_HELP),
    held_out: list[Path] = typer.Option([], help="Held-out text (encoders: pairs) instead of the corpus's end."),
    methods: list[str] = typer.Option(
        DEFAULT_METHODS, "--method", help="METHOD, METHOD+calibrate, METHOD+norm=script; all of them with `all`."
    ),
    other_text: list[Path] = typer.Option([], help="Held-out text of another kind, scored too. Repeatable."),
    field: str | None = FIELD,
    tokenizer: Path | None = typer.Option(None, help="An existing target tokenizer."),
    vocabulary: str = typer.Option("replace", help="replace, extend, swap or auto, as for build."),
    new_tokens: str | None = typer.Option(
        None, help="Tokens that extend or swap bring in, or 20%: as few as save so much."
    ),
    vocab_size: int | None = typer.Option(None, min=1, help="Size of the trained vocabulary."),
    donor: str | None = typer.Option(None, help="A model with rows for the target tokens, for methods that use one."),
    updates: str = typer.Option("50,200", help="When to measure besides at once; 0 for no training."),
    batch_tokens: int = typer.Option(512, min=1, help="Tokens of an update."),
    learning_rate: float | None = typer.Option(
        None, help="Of the tables [default: 3e-4 for SmolLM2, less for a model whose rows have smaller numbers]."
    ),
    seeds: int = typer.Option(1, min=1, help="How many seeds; with several the spread is shown."),
    max_bytes: int = typer.Option(40_000, min=1, help="Held-out bytes to score."),
    results: Path | None = typer.Option(None, help="Keep finished rows in this JSON file and go on from them."),
    plot: Path | None = typer.Option(None, help="Draw the curves into this file (.svg, .png or .pdf)."),
    overwrite: bool = typer.Option(False, help="Replace the picture."),
    device: str | None = DEVICE,
    dtype: str | None = typer.Option(
        None, help="Precision of the body's products; tables train in float32.", rich_help_panel=RUNNING
    ),
    memory: str | None = MEMORY,
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare initialisers: bits per byte at once and after short trainings of the tables; retrieval for encoders.

    Example: `vocabtransfer leaderboard --source smollm2 --target dutch --parallel en-nl.tsv.gz --results nl.json`
    """
    from vocabtransfer.leaderboard.inputs import LeaderboardRequest
    from vocabtransfer.leaderboard.plot import check_picture, draw
    from vocabtransfer.leaderboard.run import run_leaderboard
    from vocabtransfer.running.plan import find_device
    from vocabtransfer.running.settings import running_with

    quiet_transformers()
    if plot is not None:
        check_picture(plot, overwrite)
    request = LeaderboardRequest(
        source=source,
        target=target,
        parallel=existing(parallel, "--parallel"),
        columns=column_pair(columns),
        held_out=existing(held_out, "--held-out"),
        other_text=existing(other_text, "--other-text"),
        tokenizer=existing([tokenizer], "--tokenizer")[0] if tokenizer else None,
        vocab_size=vocab_size,
        vocabulary=vocabulary,
        new_tokens=new_tokens,
        donor=donor,
        updates=_numbers(updates),
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        max_bytes=max_bytes,
        field=field,
        precision=cast(Any, "float32" if dtype in (None, "auto") else dtype),
    )
    place = find_device(device or "cpu")
    with show_progress(not as_json), running_with(place, None, memory_bytes(memory)):
        contest, table = run_leaderboard(request, methods, seeds=seeds, results=results)
    if plot is not None:
        draw(table, plot)
    facts = {
        "source": contest.source.name,
        "pairs": len(contest.pairs),
        "vocabulary": len(contest.tokenizer),
        "running": {"device": place, "dtype": contest.precision},
    }
    if as_json:
        print_json({**facts, "methods": table})
    else:
        _print(table)


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--updates takes numbers such as 50,200, not {text!r}.")
    return tuple(sorted({int(part) for part in parts} - {0}))


def _print(rows: list[dict[str, Any]]) -> None:
    keys = list(rows[0]["scores"]) if rows else []
    others = list(rows[0]["other"]) if rows else []
    several = any(row["seeds"] > 1 for row in rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for key in keys:
        table.add_column(f"bits/byte after {key}" if key.isdigit() else key, justify="right")
    for key in others:
        table.add_column(f"other text after {key}", justify="right")
    for name in ("tokens/word", "seconds", "MB"):
        table.add_column(name, justify="right")
    for row in rows:
        spread = row["spread"] if several else {}
        cells = [
            f"{row['scores'][key]:.3f}" + (f" ±{spread[key] / 2:.3f}" if spread else "") if key in row["scores"] else ""
            for key in keys
        ]
        cells += [f"{row['other'][key]:.3f}" if key in row["other"] else "" for key in others]
        words = f"{row['tokens_per_word']:.2f}" if row["tokens_per_word"] is not None else ""
        table.add_row(row["method"], *cells, words, f"{row['seconds']:.1f}", f"{row['megabytes']:,}")
    Console(highlight=False, markup=False).print(table)
