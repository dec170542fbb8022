"""Learning BPE merges on top of those that a vocabulary already has.

Every merge takes the most frequent pair of neighbours (Sennrich et al. 2016, arXiv 1508.07909), as in the training of a
new vocabulary, but the words begin as the existing merges leave them (Purason et al. 2025, arXiv 2512.03989). Counts
are kept up to date at the places where a merge applies; everything else is untouched.
"""

import heapq
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.progress import track
from vocabtransfer.tokenization.merge_kernels import apply_merge, fill_table, index_pairs, link_symbols
from vocabtransfer.tokenization.merges import IntArray, Merge, empty_table
from vocabtransfer.tokenization.ragged import Pieces

# Longer words are cut: the time that merging one takes grows with the square of its length.
LONGEST_WORD = 1 << 10


@dataclass(frozen=True, eq=False)
class LearntMerges:
    """New merges, best first, and how often each pair was counted when its turn came, int64 (merges,)."""

    merges: tuple[Merge, ...]
    counts: IntArray

    @property
    def tokens(self) -> tuple[str, ...]:
        """The new tokens, in the order of their merges."""
        return tuple(left + right for left, right in self.merges)


def learn_more_merges(
    strings: Sequence[str],
    pieces: Pieces,
    weights: IntArray,
    new_tokens: int,
    *,
    longest: int,
    least: int,
    banned: Container[str] = (),
) -> LearntMerges:
    """Learn at most ``new_tokens`` merges from words that are already cut into tokens.

    Every merge makes a new string: no longer than ``longest`` characters, neither ``banned`` nor among the ``strings``
    (by id) yet: a pair that spells an existing token stands only where that token cannot be reached. Pairs counted less
    than ``least`` times are not worth a token. Ties go to the smaller ids, so the same words give the same merges.

    ``pieces`` are the tokens of the words, int32 ids, negative where a character has no token, and ``weights``, int64
    (words,), how often each word occurs. Both are left as they are.
    """
    index = _PairIndex(pieces, weights)
    texts, known = list(strings), set(strings)
    heap = [(-int(index.counts[slot]), int(index.slot_keys[slot]), slot) for slot in index.frequent(least)]
    heapq.heapify(heap)
    merges: list[Merge] = []
    counts: list[int] = []
    for turn in track(range(min(new_tokens, len(index.symbols) ** 2)), "learning merges"):
        while len(merges) == turn and heap:
            claimed, key, slot = heapq.heappop(heap)
            count = int(index.counts[slot])
            # Counts only grow where a pair is pushed anew, so no entry of the heap is too low; one that is too high
            # goes back with what it is worth now.
            if count < -claimed:
                if count >= least:
                    heapq.heappush(heap, (-count, key, slot))
                continue
            left, right = texts[key >> 32], texts[key & 0xFFFFFFFF]
            text = left + right
            if len(text) > longest or text in known or text in banned:
                continue
            merges.append((left, right))
            counts.append(count)
            for grown in index.apply(slot, len(texts)).tolist():
                if index.counts[grown] >= least:
                    heapq.heappush(heap, (-int(index.counts[grown]), int(index.slot_keys[grown]), grown))
            texts.append(text)
            known.add(text)
        if len(merges) == turn:
            break  # no pair is left
    return LearntMerges(tuple(merges), np.array(counts, np.int64))


def words_to_learn_from(counts: Mapping[str, int]) -> tuple[list[str], IntArray]:
    """Return words and how often each occurs, int64 (words,); very long ones are cut."""
    words: list[str] = []
    weights: list[int] = []
    for word, count in counts.items():
        for start in range(0, len(word), LONGEST_WORD):
            words.append(word[start : start + LONGEST_WORD])
            weights.append(count)
    return words, np.array(weights, np.int64)


class _PairIndex:
    """All pairs of neighbours in some words, how often each occurs and where; arrays that grow as merges are made."""

    def __init__(self, pieces: Pieces, weights: IntArray) -> None:
        self.symbols = pieces.ids.copy()
        self.following, self.preceding, self.word_of = link_symbols(pieces.indptr, pieces.ids)
        self.weights = weights
        room = max(16, len(pieces.ids) + len(pieces.ids) // 2)
        self.keys, self.slots = empty_table(len(pieces.ids))
        self.slot_keys, self.counts = np.empty(room, np.int64), np.empty(room, np.int64)
        self.heads, self.sizes = np.empty(room, np.int32), np.empty(room, np.int32)
        self.place, self.then = np.empty(room, np.int32), np.empty(room, np.int32)
        self.used = np.zeros(2, np.int64)
        index_pairs(self.symbols, self.following, self.word_of, self.weights, *self._index)

    @property
    def _index(self) -> tuple[NDArray[np.int64] | NDArray[np.int32], ...]:
        return (
            self.keys, self.slots, self.slot_keys, self.counts, self.heads, self.sizes, self.place, self.then, self.used,
        )  # fmt: skip

    def frequent(self, least: int) -> list[int]:
        """Return the slots of the pairs that occur at least so often."""
        found: list[int] = np.flatnonzero(self.counts[: self.used[0]] >= least).tolist()
        return found

    def apply(self, slot: int, product: int) -> NDArray[np.int32]:
        """Replace the pair of ``slot`` by ``product`` everywhere; return the slots of pairs that became more."""
        self._make_room(2 * int(self.sizes[slot]))
        grown: NDArray[np.int32] = apply_merge(
            slot, product, self.symbols, self.following, self.preceding, self.word_of, self.weights, *self._index
        )
        return grown

    def _make_room(self, wanted: int) -> None:
        if self.used[0] + wanted > len(self.counts):
            extra = max(wanted, len(self.counts) // 2)
            self.slot_keys, self.counts = _longer(self.slot_keys, extra), _longer(self.counts, extra)
            self.heads, self.sizes = _longer(self.heads, extra), _longer(self.sizes, extra)
        if self.used[1] + wanted > len(self.place):
            extra = max(wanted, len(self.place) // 2)
            self.place, self.then = _longer(self.place, extra), _longer(self.then, extra)
        if 2 * (self.used[0] + wanted) > len(self.keys):
            self.keys, self.slots = empty_table(int(self.used[0]) + wanted)
            fill_table(self.keys, self.slots, self.slot_keys[: self.used[0]])


def _longer(array: NDArray[Any], extra: int) -> NDArray[Any]:
    return np.concatenate([array, np.empty(extra, array.dtype)])
