"""Rebuilds the alignment tables that ship with the project: ``python -m vocabtransfer.corpora.rebuild [LANG ...]``.

For each language: fetch everything the packages have, clean it, align the words, drop thin evidence until the file is
small enough to ship, and write the table with the provenance and licence of every part. At the end ``README.md`` beside
the tables is written anew from what the tables themselves say.
"""

import argparse
import json
import lzma
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vocabtransfer.alignment.aligner import STEM_LENGTH, THRESHOLD, align_corpus
from vocabtransfer.alignment.corpora import ParallelCorpus
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.corpora.parallel import CorpusReport, fetch_parallel
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.languages import Language, find_language
from vocabtransfer.progress import show_progress

SHIPPED = ("tt", "nl", "ru", "tr", "kk", "sw", "hi", "de")
TABLES = Path(__file__).parents[2] / "data" / "alignments"
MOST_BYTES = 1_500_000
# Links counted less often than this are dropped, the first threshold that makes the file small enough.
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.95, 1.5, 2.0)
# A link that is less than a hundredth of what happens to both its words is an accident of alignment.
LEAST_SHARE = 0.01


def build_table(language: Language, corpora: Path) -> WordTable:
    """Fetch, clean and align everything the packages carry for a language, into a table not pruned yet.

    The corpus is left in the folder ``corpora``. Raises `VocabTransferError` when a package cannot be had: a table made
    of less than all would not be the same table.
    """
    report = fetch_parallel(language, corpora)
    if report.missing:
        raise VocabTransferError(f"the table of {language.name} cannot be rebuilt in full: {report.missing[0]}")
    pairs = ParallelCorpus([report.path], columns=(1, 2))
    return align_corpus(pairs, metadata=metadata(report))


def metadata(report: CorpusReport) -> dict[str, Any]:
    """Return what a table says about itself: languages, size, and licence and packages of every part."""
    parts = [asdict(part) for part in report.parts]
    return {
        "source": "en",
        "target": report.language.tag,
        "pairs": report.pairs,
        "aligner": {"name": "vocabtransfer.alignment.align", "threshold": THRESHOLD, "stem_length": STEM_LENGTH},
        "provenance": parts,
        "licence": "Counts of words derived from texts under: "
        + "; ".join(sorted({part["licence"] for part in parts})),
        "rebuild": f"python -m vocabtransfer.corpora.rebuild {report.language.tag}",
    }


def save_small(table: WordTable, path: Path, most_bytes: int = MOST_BYTES) -> WordTable:
    """Write the table with the mildest pruning that keeps the file within ``most_bytes``, and return it.

    Only links are dropped: how often each word occurs stays whole, so that a tokenizer can be trained on it. Raises
    `VocabTransferError` when even the strictest pruning leaves too much.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".rebuild-") as folder:
        for threshold in THRESHOLDS:
            kept = {"min_count": threshold, "min_share": LEAST_SHARE}
            small = table.prune(**kept)
            sizes = (len(small.source_words), len(small.target_words), small.counts.nnz)
            facts = dict(zip(("source_words", "target_words", "links"), sizes, strict=True))
            small = replace(small, metadata={**small.metadata, **facts, "pruned": kept})
            staging = Path(folder) / path.name
            small.save(staging)
            if staging.stat().st_size <= most_bytes:
                staging.replace(path)
                return small
    raise VocabTransferError(f"{path.name} cannot be made smaller than {most_bytes} bytes: leave out a source.")


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a table without reading its counts."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        facts: dict[str, Any] = json.loads(next(lines).removeprefix("# "))
    return facts


def readme(folder: Path) -> str:
    """Return the text of ``README.md`` for a folder of tables, all of it taken from their metadata."""
    tables = {path.name: read_metadata(path) for path in sorted(folder.glob("en-*.tsv.xz"))}
    lines = [
        "# Alignment tables",
        "",
        "Counts of English words and the words that translate them, one file a language, as `WordTable.load` reads",
        "them: a line of metadata, then `English`, `target`, `count`; a line with one side empty says how often the",
        "other side's word occurs at all. They were derived from the translations that the packages below carry. There",
        "is no text in them, only counts; the licences are those of the texts.",
        "",
        "`python -m vocabtransfer.corpora.rebuild` makes them again (on Debian 12, after `apt-get update`, with npm",
        "and `pip install 'vocabtransfer[corpora]'`); name languages behind it to rebuild only those. The same",
        "packages give the same bytes. This page is written by the same command.",
        "",
        "| file | language | sentence pairs | words (English, target) | distinct words | word pairs | kB |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    parts: dict[str, dict[str, dict[str, Any]]] = {}
    for name, facts in tables.items():
        provenance = facts["provenance"]
        running = " + ".join(
            f"{sum(part[side] for part in provenance):,}" for side in ("english_words", "target_words")
        )
        distinct = f"{facts['source_words']:,} + {facts['target_words']:,}"
        size = (folder / name).stat().st_size // 1000
        language = find_language(facts["target"]).name
        lines.append(
            f"| `{name}` | {language} | {facts['pairs']:,} | {running} | {distinct} | {facts['links']:,} | {size:,} |"
        )
        for part in provenance:
            parts.setdefault(part["name"], {})[facts["target"]] = part
    return "\n".join([*lines, "", *_part_lines(parts), ""])


def _part_lines(parts: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    lines = ["## Parts", "", "| part | what | licence of the texts | pairs |", "|---|---|---|---|"]
    for name, by_language in parts.items():
        first = next(iter(by_language.values()))
        pairs = ", ".join(f"{code} {part['pairs']:,}" for code, part in by_language.items())
        lines.append(f"| {name} | {first['description']} | {first['licence']} | {pairs} |")
    lines += ["", "## Packages", ""]
    for name, by_language in parts.items():
        packages = sorted({package for part in by_language.values() for package in part["packages"]})
        lines.append(f"- **{name}**: {', '.join(packages)}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m vocabtransfer.corpora.rebuild", description=__doc__)
    parser.add_argument("languages", nargs="*", metavar="LANG", help=f"languages to rebuild (all: {' '.join(SHIPPED)})")
    # In an installed package there is no data/ to rebuild.
    checkout = TABLES if TABLES.is_dir() else None
    parser.add_argument("--output", type=Path, default=checkout, required=checkout is None, help="folder of the tables")
    parser.add_argument("--corpora", type=Path, help="folder to keep the fetched corpora in (default: in the cache)")
    options = parser.parse_args(arguments)
    try:
        languages = [find_language(text) for text in options.languages or SHIPPED]
        corpora = options.corpora or cache_folder("corpora")
        options.output.mkdir(parents=True, exist_ok=True)
        with show_progress():
            for language in languages:
                table = build_table(language, corpora)
                save_small(table, options.output / f"en-{language.tag}.tsv.xz")
        (options.output / "README.md").write_text(readme(options.output), encoding="utf-8")
    except VocabTransferError as problem:
        print(problem, file=sys.stderr)
        return 2 if isinstance(problem, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
