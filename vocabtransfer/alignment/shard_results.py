"""What shards leave when they are done: their links, and the table that their links add up to."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_text import NumberedText
from vocabtransfer.alignment.shard_files import read_arrays, unpack_words
from vocabtransfer.alignment.shard_steps import SIDES, Plan, read_text_shard
from vocabtransfer.alignment.shard_vocabulary import GrowingVocabulary
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.word_alignment import WordAlignment
from vocabtransfer.progress import track

_MERGED_AT_ONCE = 5_000_000


def link_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a Pharaoh file, one shard in memory at a time."""
    for shard in track(range(len(plan.shards)), "writing links"):
        yield from shard_alignment(plan, shard).pharaoh_lines()


def word_lines(plan: Plan) -> Iterator[str]:
    """Yield the sentence pairs as links count their words, one shard in memory at a time."""
    for shard in track(range(len(plan.shards)), "writing words"):
        yield from shard_alignment(plan, shard).word_lines()


def shard_alignment(plan: Plan, shard: int) -> WordAlignment:
    """Return the links of one shard."""
    text = read_text_shard(plan, shard)
    sides = [
        NumberedText(
            tuple(unpack_words(text[f"{side}_letters"], text[f"{side}_sizes"])),
            text[f"{side}_starts"],
            text[f"{side}_ids"],
        )
        for side in SIDES
    ]
    with read_arrays(plan.shard(shard, f"round-{plan.rounds}")) as found:
        return WordAlignment(
            sides[0],
            sides[1],
            found["starts"],
            found["source_positions"],
            found["target_positions"],
            found["probabilities"],
            "vocabtransfer",
        )


def add_up(plan: Plan, source: GrowingVocabulary, target: GrowingVocabulary, facts: Mapping[str, Any]) -> WordTable:
    """Return the table of all shards' links, added up in their order."""
    width = len(target.surfaces)
    sums = _Sums()
    for shard in track(range(len(plan.shards)), "counting words"):
        with read_arrays(plan.shard(shard, f"round-{plan.rounds}")) as found:
            sums.add(found["pair_sources"].astype(np.int64) * width + found["pair_targets"], found["pair_counts"])
    keys, counts = sums.total()
    sources, targets = np.divmod(keys, width)
    return WordTable.from_pairs(
        source.surfaces, target.surfaces, (sources, targets, counts), source.totals(), target.totals(), facts
    )


class _Sums:
    """Sums by key, added up once enough have come together: memory stays near that of the result."""

    def __init__(self) -> None:
        self._keys: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._counts: list[NDArray[np.float64]] = [np.zeros(0)]

    def add(self, keys: NDArray[np.int64], counts: NDArray[np.float64]) -> None:
        self._keys.append(keys)
        self._counts.append(counts)
        if sum(map(len, self._keys[1:])) > max(_MERGED_AT_ONCE, len(self._keys[0])):
            self.total()

    def total(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        keys, places = np.unique(np.concatenate(self._keys), return_inverse=True)
        counts = np.bincount(places, np.concatenate(self._counts), minlength=len(keys)).astype(np.float64)
        self._keys, self._counts = [keys], [counts]
        return keys, counts
