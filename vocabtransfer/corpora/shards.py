"""Corpora in shards: words counted and pairs filtered by many processes, on one machine or on a Ray cluster.

A shard is a file, on this machine or in an object store (see `vocabtransfer.files.remote`). Each is read by whoever works on
it: text never passes through the process that leads, which holds the counts of the words, or eight bytes a pair.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.corpora import Columns, read_parallel
from vocabtransfer.alignment.engines import Engine, open_engine
from vocabtransfer.alignment.filters import SAMPLE, SEEN, PairFilter, Seen, Usual, digest
from vocabtransfer.alignment.words import WordCounts, in_order
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.remote import expanded, fetched, joined, listed, moved, removed, stored
from vocabtransfer.files.text import read_text
from vocabtransfer.files.text_files import open_lines, read_lines
from vocabtransfer.progress import track
from vocabtransfer.public import public

_NAME = "part-{:05d}.tsv.zst"
_WAITING, _WAITING_NAMES = "judged-{:05d}.tsv.zst", "judged-*.tsv.zst"


@public
def count_corpus(
    shards: Sequence[str], *, field: str | None = None, engine: str = "local", processes: int = 1
) -> dict[str, float]:
    """Return how often each word stands in files of text, in the order of the words; the files are read side by side.

    Args:
        shards: paths and addresses, patterns among them.
        field: the field that holds the text where there are several, named or counted from 0: ``"1"`` is the target side
            of pairs in two columns.
        engine: "local", or "ray" for a Ray cluster.
        processes: how many work here, or on a cluster started here.

    Memory follows the number of different words. Raises what `read_text` and `expanded` raise, and `VocabTransferError`
    where there is no word.
    """
    files = expanded(shards)
    counts: Counter[str] = Counter()
    with open_engine(engine, processes) as workers:
        found = workers.map(_count_shard, ((file, field) for file in files))
        for words in track(found, "counting words", len(files)):
            counts.update(words)
    return in_order(counts, ", ".join(shards))


def _count_shard(file: str, field: str | None) -> dict[str, int]:
    words = WordCounts()
    with fetched(file) as path:
        for line in read_text(path, field=field):
            words.add(line)
    return dict(words.counts())


@dataclass(frozen=True)
class Filtered:
    """What filtering did: pairs read and kept, those dropped by reason, and the references of the new shards."""

    read: int
    kept: int
    dropped: dict[str, int]
    files: tuple[str, ...]


@public
def filter_corpus(
    shards: Sequence[str],
    output: str,
    *,
    rules: PairFilter | None = None,
    columns: Columns | None = None,
    engine: str = "local",
    processes: int = 1,
    overwrite: bool = False,
) -> Filtered:
    """Drop bad sentence pairs of files of pairs, each file by itself, and duplicates among all of them.

    Args:
        shards: paths and addresses of files of two columns or records, patterns among them.
        output: a folder, or its address; a new ``part-NUMBER.tsv.zst`` stands there for each shard.
        rules: what is dropped; `PairFilter()` where left out.
        columns: the two columns or fields.
        engine, processes: as for `count_corpus`.
        overwrite: replace parts that are in the output.

    What is usual is learnt from the first 20,000 pairs; so the result is the same for any engine and number of processes.
    Raises what `read_parallel` and `expanded` raise, `VocabTransferError` for an output that holds parts and for a corpus
    of which nothing is left.
    """
    rules = rules or PairFilter()
    files = expanded(shards)
    if not files:
        raise UsageError("Name at least one shard to filter.")
    before = listed(output, "part-*.tsv.zst")
    if before and not overwrite:
        raise VocabTransferError(f"{output} holds {len(before)} parts: give another folder, or `overwrite`.")
    usual = Usual.of(_first_pairs(files, rules, columns))
    parts = [joined(output, _NAME.format(i)) for i in range(len(files))]
    waiting = [joined(output, _WAITING.format(i)) for i in range(len(files))]
    try:
        with open_engine(engine, processes) as workers:
            kept, read, dropped = _filter(workers, files, waiting, parts, rules, usual, columns)
    finally:
        for left in listed(output, _WAITING_NAMES):
            removed(left)
    if not kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        raise VocabTransferError(f"no sentence pair is left ({reasons}): nothing was written to {output}.")
    for stale in set(before) - set(parts):
        removed(stale)
    ordered = dict(sorted(((+dropped).items()), key=lambda item: (-item[1], item[0])))
    return Filtered(read, kept, ordered, tuple(parts))


def _filter(
    workers: Engine,
    files: Sequence[str],
    waiting: Sequence[str],
    parts: Sequence[str],
    rules: PairFilter,
    usual: Usual,
    columns: Columns | None,
) -> tuple[int, int, Counter[str]]:
    """Write the parts, if any pair is left; return how many are, how many were read, and why others were dropped."""
    tasks = ((file, place, rules, usual, columns) for file, place in zip(files, waiting, strict=True))
    seen, read, dropped = Seen(), 0, Counter[str]()
    fresh: list[NDArray[np.bool_]] = []
    for shard in track(workers.map(_judge_shard, tasks), "judging sentence pairs", len(files)):
        read += shard.read
        dropped.update(shard.dropped)
        one = seen.fresh(shard.digests) if rules.duplicates else np.ones(len(shard.digests), np.bool_)
        dropped[SEEN] += int((~one).sum())
        fresh.append(one)
    kept = sum(int(one.sum()) for one in fresh)
    if not kept:
        return kept, read, dropped
    again = [i for i, one in enumerate(fresh) if not one.all()]
    rewritten = workers.map(_keep_rows, ((waiting[i], parts[i], fresh[i]) for i in again))
    for _ in track(rewritten, "dropping duplicates", len(again)):
        pass
    for i in set(range(len(files))) - set(again):
        moved(waiting[i], parts[i])
    return kept, read, dropped


class _Judged(NamedTuple):
    """What a shard held: pairs read, those dropped by reason, and the digests of those that are kept so far, uint64."""

    read: int
    dropped: dict[str, int]
    digests: NDArray[np.uint64]


def _judge_shard(file: str, waiting: str, rules: PairFilter, usual: Usual, columns: Columns | None) -> _Judged:
    """Judge the pairs of a file one by one, and write those that are kept so far."""
    dropped: Counter[str] = Counter()
    digests: list[int] = []
    with fetched(file) as path, stored(waiting) as copy, open_lines(copy) as write:
        corpus = read_parallel(path, columns=columns, source=rules.source, target=rules.target, skip_damaged=True)
        for pair in rules.judge_single(corpus, usual):
            if pair.reason is None:
                write(f"{pair.source}\t{pair.target}\n")
                digests.append(digest(pair.source, pair.target))
            else:
                dropped[pair.reason] += 1
        dropped.update(corpus.statistics.skipped)
    return _Judged(len(digests) + dropped.total(), dict(dropped), np.array(digests, np.uint64))


def _keep_rows(waiting: str, part: str, fresh: NDArray[np.bool_]) -> None:
    """Write the lines of a judged shard that are no duplicates."""
    with fetched(waiting) as path, stored(part) as copy, open_lines(copy) as write:
        for (_, line), keep in zip(read_lines(path), fresh.tolist(), strict=True):
            if keep:
                write(f"{line}\n")


def _first_pairs(files: Iterable[str], rules: PairFilter, columns: Columns | None) -> list[tuple[str, str]]:
    first: list[tuple[str, str]] = []
    for file in files:
        with fetched(file) as path:
            corpus = read_parallel(path, columns=columns, source=rules.source, target=rules.target, skip_damaged=True)
            first += islice(corpus, SAMPLE - len(first))
        if len(first) >= SAMPLE:
            break
    return first
