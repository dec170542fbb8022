"""`vocabtransfer align`: a parallel corpus becomes an alignment table."""

from pathlib import Path

import typer

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import show_progress

from .arguments import column_pair, existing
from .output import JSON_OPTION, print_json, print_table


def align(
    parallel: list[Path] = typer.Argument(..., help="TSV, TMX or two Moses files; plain, gz, xz or zst."),
    output: Path = typer.Option(..., help="The table to write: NAME.tsv.gz, .tsv.xz or .tsv.zst."),
    target: str = typer.Option(..., help="The target language."),
    source: str = typer.Option("english", help="The source language."),
    columns: str | None = typer.Option(None, help="The two columns of a TSV, counted from 0: 1,2."),
    min_count: float = typer.Option(0.0, help="Leave out word pairs with a smaller count."),
    overwrite: bool = typer.Option(False, help="Replace an existing table."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Align the words of a parallel corpus and write how often each pair was linked.

    Example: `vocabtransfer align en-nl.tsv.gz --target dutch --output en-nl.tsv.xz`
    """
    from vocabtransfer.alignment.aligner import count_words
    from vocabtransfer.alignment.corpora import read_parallel
    from vocabtransfer.alignment.table import SUFFIXES
    from vocabtransfer.languages import find_language

    if output.exists() and not overwrite:
        raise VocabTransferError(f"{output} exists: choose another name or give --overwrite.")
    if not output.name.endswith(SUFFIXES):
        raise UsageError(f"--output {output}: the name of a table ends in .tsv, .tsv.gz, .tsv.xz or .tsv.zst.")
    languages = find_language(source), find_language(target)
    corpus = read_parallel(
        existing(parallel, "corpus"), columns=column_pair(columns), source=languages[0], target=languages[1]
    )
    with show_progress(not as_json):
        table = count_words(corpus, metadata={"source": languages[0].code, "target": languages[1].code})
        if min_count:
            table = table.prune(min_count)
        table.save(output)
    facts = {
        "output": str(output),
        "pairs": corpus.statistics.pairs,
        "skipped": dict(corpus.statistics.skipped),
        "source_words": len(table.source_words),
        "target_words": len(table.target_words),
        "word_pairs": int(table.counts.nnz),
    }
    if as_json:
        print_json(facts)
    else:
        rows = [
            (key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
            for key, value in facts.items()
        ]
        print_table("Aligned", rows)
