"""`vocabtransfer align merge`, `show` and `filter`."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import show_progress, track

from .align_parts import check_outputs, check_table, print_facts
from .arguments import COLUMNS_HELP, MAX_RATIO, MAX_WORDS, PAIR_KINDS, column_pair, existing
from .output import JSON_OPTION, print_json, print_table

if TYPE_CHECKING:
    from vocabtransfer.alignment.table import WordTable

_TEXT_SUFFIXES = (".tsv", ".tsv.gz", ".tsv.xz", ".tsv.zst")


def merge(
    tables: list[Path] = typer.Argument(..., help="Two or more alignment tables of the same languages."),
    output: Path = typer.Option(..., help="The table to write: NAME.tsv.gz, .tsv.xz or .tsv.zst."),
    weight: list[float] = typer.Option([], help="How much a table's counts count, one for each in order [default: 1]."),
    min_count: float = typer.Option(0.0, help="Leave out word pairs with a smaller count."),
    overwrite: bool = typer.Option(False, help="Replace an existing table."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Add up alignment tables.

    Example: `vocabtransfer align merge web.tsv.xz books.tsv.xz --weight 1 --weight 3 --output en-tt.tsv.xz`
    """
    from vocabtransfer.alignment.table import merge_tables

    check_outputs({"--output": output}, overwrite, tables)
    check_table(output)
    if len(tables) < 2:
        raise UsageError("Merging needs two tables or more.")
    if weight and len(weight) != len(tables):
        raise UsageError(f"{len(tables)} tables were given but {len(weight)} weights: give each table one.")
    if any(not 0 < factor < float("inf") for factor in weight):
        raise UsageError("Every --weight must be a positive number.")
    loaded = [_load(path) for path in existing(tables, "table")]
    targets = sorted({str(table.metadata["target"]) for table in loaded if "target" in table.metadata})
    if len(targets) > 1:
        raise UsageError(f"The tables have different target languages ({', '.join(targets)}): merge like ones.")
    with show_progress(not as_json):
        merged = merge_tables(loaded, weight or None)
        if min_count:
            merged = merged.prune(min_count)
        merged.save(output)
    print_facts("Merged", {"output": str(output), "tables": len(tables), **_facts(merged)}, as_json)


def pivot(
    to_pivot: Path = typer.Argument(..., help="A table from the source to the third language: en-ru."),
    from_pivot: Path = typer.Argument(..., help="A table from the third language to the target: ru-tt."),
    output: Path = typer.Option(..., help="The table to write: NAME.tsv.gz, .tsv.xz or .tsv.zst."),
    trust: float = typer.Option(0.5, help="What a link by way of a third language counts beside a direct one."),
    overwrite: bool = typer.Option(False, help="Replace an existing table."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Make a table by way of a third language, where direct sentence pairs are few.

    Example: `vocabtransfer align pivot en-ru.tsv.xz ru-tt.tsv.xz --output en-ru-tt.tsv.xz`
    """
    from vocabtransfer.alignment.pivot import pivot_tables

    check_outputs({"--output": output}, overwrite, [to_pivot, from_pivot])
    check_table(output)
    first, second = (_load(path) for path in existing([to_pivot, from_pivot], "table"))
    table = pivot_tables(first, second, trust=trust)
    table.save(output)
    print_facts("Pivoted", {"output": str(output), **_facts(table)}, as_json)


def show(
    table: Path = typer.Argument(..., help="An alignment table."),
    word: list[str] = typer.Option([], help="A word of either language. Repeatable."),
    top: int = typer.Option(10, min=1, help="How many translations to show."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show what a table says of a word, or what it holds at all.

    Example: `vocabtransfer align show en-tt.tsv.xz --word китап`
    """
    loaded = _load(*existing([table], "table"))
    if not word:
        metadata = {key: loaded.metadata[key] for key in sorted(loaded.metadata)}
        print_facts(table.name, {"table": str(table), **metadata, **_facts(loaded)}, as_json)
        return
    sides = {"target": loaded, "source": loaded.flip()}
    found = {asked: {side: _said_of(way, asked, top) for side, way in sides.items()} for asked in word}
    missing = [asked for asked, said in found.items() if not any(said.values())]
    if missing:
        raise VocabTransferError(f"{table} has no source or target word {', '.join(map(repr, missing))}.")
    if as_json:
        print_json({"table": str(table), "words": found})
        return
    for asked, said in found.items():
        for side, facts in said.items():
            if facts is not None:
                rows = [(entry["word"], f"{entry['count']:,.2f}") for entry in facts["linked"]]
                print_table(asked, [(f"{side} word", f"{facts['occurs']:,.0f} times"), *rows])


def filter_corpus(
    parallel: list[Path] = typer.Argument(..., help=f"{PAIR_KINDS}."),
    output: Path = typer.Option(..., help="The pairs to keep: NAME.tsv, .tsv.gz, .tsv.xz or .tsv.zst."),
    target: str = typer.Option(..., help="The target language."),
    source: str = typer.Option("english", help="The source language."),
    columns: str | None = typer.Option(None, help=COLUMNS_HELP),
    max_ratio: float = MAX_RATIO,
    max_words: int = MAX_WORDS,
    keep_identical: bool = typer.Option(False, "--keep-identical", help="Keep pairs whose sides are alike."),
    keep_duplicates: bool = typer.Option(False, "--keep-duplicates", help="Keep pairs that come again."),
    any_language: bool = typer.Option(
        False, "--any-language", help="Keep sentences in the language of the other side."
    ),
    rejected: Path | None = typer.Option(None, help="Write what is dropped: reason, source, target."),
    overwrite: bool = typer.Option(False, help="Replace existing outputs."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Drop bad sentence pairs of a corpus, and say how many and why.

    Dropped are pairs with an empty side, NULs, broken encoding, too many words, no letters, the same text on both sides,
    another script, the other side's language, an unusual length for a translation, and pairs seen before.

    Example: `vocabtransfer align filter crawl.tsv.gz --target tatar --output clean.tsv.gz`
    """
    from vocabtransfer.alignment.corpora import read_parallel
    from vocabtransfer.alignment.filters import PairFilter
    from vocabtransfer.files.text_files import open_lines
    from vocabtransfer.languages import find_language

    check_outputs({"--output": output, "--rejected": rejected}, overwrite, parallel)
    for option, path in (("--output", output), ("--rejected", rejected)):
        if path is not None and not path.name.endswith(_TEXT_SUFFIXES):
            raise UsageError(f"{option} {path}: the name of the pairs ends in {', '.join(_TEXT_SUFFIXES)}.")
    languages = find_language(source), find_language(target)
    corpus = read_parallel(
        existing(parallel, "corpus"), columns=column_pair(columns), source=languages[0], target=languages[1],
        skip_damaged=True,
    )  # fmt: skip
    rules = PairFilter(
        *languages,
        max_ratio=max_ratio,
        max_words=max_words,
        same_language=not any_language,
        identical=not keep_identical,
        duplicates=not keep_duplicates,
    )
    dropped: Counter[str] = Counter()
    kept = 0
    with show_progress(not as_json), open_lines(output) as keep, _lines_of(rejected) as drop:
        for pair in track(rules.judge(corpus), "judging sentence pairs"):
            if pair.reason is None:
                kept += 1
                keep(f"{pair.source}\t{pair.target}\n")
            else:
                dropped[pair.reason] += 1
                drop(f"{pair.reason}\t{pair.source}\t{pair.target}\n")
        dropped.update(corpus.statistics.skipped)
        if not kept:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
            raise VocabTransferError(f"no sentence pair is left ({reasons}): {output} was not written.")
    facts = {
        "output": str(output),
        "read": kept + dropped.total(),
        "kept": kept,
        "dropped": dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
    }
    print_facts("Filtered", facts, as_json)


@contextlib.contextmanager
def _lines_of(path: Path | None) -> Iterator[Callable[[str], object]]:
    from vocabtransfer.files.text_files import open_lines

    if path is None:
        yield lambda line: None
    else:
        with open_lines(path) as write:
            yield write


def _load(path: Path) -> "WordTable":
    from vocabtransfer.alignment.table import WordTable

    return WordTable.load(path)


def _facts(table: "WordTable") -> dict[str, Any]:
    return {
        "source_words": len(table.source_words),
        "target_words": len(table.target_words),
        "word_pairs": int(table.counts.nnz),
    }


def _said_of(table: "WordTable", word: str, top: int) -> dict[str, Any] | None:
    """Return how often a target word occurs and what it is linked with; None for a word that is not in the table."""
    occurs = table.occurrences(word)
    if not occurs:
        return None
    linked = [{"word": other, "count": round(count, 2)} for other, count in table.lookup(word)[:top]]
    return {"occurs": round(occurs, 2), "linked": linked}
