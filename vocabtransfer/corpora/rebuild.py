"""Rebuilds the alignment tables that ship with the project: ``python -m vocabtransfer.corpora.rebuild [LANG ...]``.

For each language: fetch everything the packages have, clean it, align the words, drop thin evidence until the file is
small enough to ship, and write the table with the provenance and licence of every part. At the end ``README.md`` beside
the tables is written anew from what the tables themselves say.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vocabtransfer.alignment.aligner import align
from vocabtransfer.alignment.corpora import ParallelCorpus
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.cache import cache_folder
from vocabtransfer.corpora.parallel import CorpusReport, fetch_parallel
from vocabtransfer.errors import VocabTransferError
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
    return align(pairs).table(metadata(report))


def metadata(report: CorpusReport) -> dict[str, Any]:
    """Return what a table says about itself: languages, size, and licence and packages of every part."""
    parts = [asdict(part) for part in report.parts]
    return {
        "source": "en",
        "target": report.language.tag,
        "pairs": report.pairs,
        "provenance": parts,
        "licence": "Counts of words derived from texts under: " + "; ".join(sorted({part["licence"] for part in parts})),
        "rebuild": f"python -m vocabtransfer.corpora.rebuild {report.language.tag}",
    }


def save_small(table: WordTable, path: Path, most_bytes: int = MOST_BYTES) -> WordTable:
    """Write the table with the mildest pruning that keeps the file within ``most_bytes``, and return it.

    Only links are dropped: how often each word occurs stays whole, so that a tokenizer can be trained on it. Raises
    `VocabTransferError` when even the strictest pruning leaves too much.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".rebuild-") as folder:
        for threshold in THRESHOLDS:
            small = table.prune(min_count=threshold, min_share=LEAST_SHARE)
            small = with_metadata(small, pruned={"min_count": threshold, "min_share": LEAST_SHARE})
            staging = Path(folder) / path.name
            small.save(staging)
            if staging.stat().st_size <= most_bytes:
                staging.replace(path)
                return small
    raise VocabTransferError(f"{path.name} cannot be made smaller than {most_bytes} bytes: leave out a source.")
