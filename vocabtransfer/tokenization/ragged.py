"""Token ids of many items in one array (CSR form), and the arithmetic on such arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Pieces:
    """Token ids of n items: item i has ``ids[indptr[i]:indptr[i + 1]]``. indptr is int64 (n + 1), ids int32 (nnz)."""

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.indptr) - 1

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        """Return the ids of item ``i``."""
        return self.ids[self.indptr[i] : self.indptr[i + 1]]


@dataclass(frozen=True, eq=False)
class SpannedPieces(Pieces):
    """Pieces of words, with the part of the word that each covers, in characters.

    Piece k covers ``starts[k]`` to ``ends[k]`` (float32, nnz): pieces of a split character share it by their bytes, and
    a boundary space that is a piece of its own covers nothing. `lengths` are the words' lengths, int32 (n).
    """

    starts: FloatArray
    ends: FloatArray
    lengths: NDArray[np.int32]


def row_pointers(lengths: NDArray[Any]) -> IntArray:
    """Return where each row of the given length begins, and where the last one ends (n + 1)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def row_numbers(pieces: Pieces) -> IntArray:
    """Return the item that each piece belongs to (nnz)."""
    return np.repeat(np.arange(len(pieces)), np.diff(pieces.indptr))


def runs(starts: IntArray, lengths: IntArray) -> IntArray:
    """Return start, start + 1, ... for every run, one run after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def take_rows(pieces: Pieces, chosen: IntArray) -> Pieces:
    """Return some of the items, in the order of ``chosen``."""
    lengths = np.diff(pieces.indptr)[chosen]
    return Pieces(row_pointers(lengths), pieces.ids[runs(pieces.indptr[chosen], lengths)])


def drop_pieces(pieces: Pieces, dropped: NDArray[np.bool_]) -> Pieces:
    """Return all items without the marked pieces."""
    before = row_pointers(dropped)
    return Pieces(pieces.indptr - before[pieces.indptr], pieces.ids[~dropped])


def put_together(*parts: tuple[Pieces, IntArray]) -> tuple[Pieces, list[IntArray]]:
    """Put items from several sources into one: each part comes with the row numbers of its items in the result.

    Returns the result and, for each part, where its pieces are in it.
    """
    lengths = np.zeros(sum(len(numbers) for _, numbers in parts), np.int64)
    for pieces, numbers in parts:
        lengths[numbers] = np.diff(pieces.indptr)
    indptr = row_pointers(lengths)
    ids = np.empty(indptr[-1], np.int32)
    places = [runs(indptr[numbers], lengths[numbers]) for _, numbers in parts]
    for (pieces, _), where in zip(parts, places, strict=True):
        ids[where] = pieces.ids
    return Pieces(indptr, ids), places


def put_spanned_together(*parts: tuple[SpannedPieces, IntArray]) -> SpannedPieces:
    """Put words from several sources into one, as `put_together` does."""
    whole, places = put_together(*parts)
    starts, ends = np.empty(len(whole.ids), np.float32), np.empty(len(whole.ids), np.float32)
    lengths = np.empty(len(whole), np.int32)
    for (pieces, numbers), where in zip(parts, places, strict=True):
        starts[where], ends[where], lengths[numbers] = pieces.starts, pieces.ends, pieces.lengths
    return SpannedPieces(whole.indptr, whole.ids, starts, ends, lengths)


def spans_by_bytes(
    pieces: Pieces, sizes: IntArray, words: Iterable[bytes], lengths: NDArray[np.int32]
) -> SpannedPieces:
    """Turn the sizes of pieces in bytes into spans in characters.

    ``sizes`` (nnz) add up to the bytes of each of the ``words``; ``lengths`` are those of the words proper, so that
    characters in front of them (a boundary space) count as nothing.
    """
    encoded = list(words)
    joined = np.frombuffer(b"".join(encoded), np.uint8)
    leads = (joined & 0xC0) != 0x80
    char = np.cumsum(leads) - 1
    begin = np.flatnonzero(leads)
    width = np.diff(np.append(begin, len(joined)))
    place = np.append(char + (np.arange(len(joined)) - begin[char]) / width[char], len(begin))
    # Where each word ends, counted in characters of all words joined, less its length: where it begins.
    byte_ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    origin = np.repeat(place[byte_ends] - lengths, np.diff(pieces.indptr))
    ends = np.cumsum(sizes)
    starts, stops = (np.maximum(place[at] - origin, 0).astype(np.float32) for at in (ends - sizes, ends))
    return SpannedPieces(pieces.indptr, pieces.ids, starts, stops, lengths)


def share_evenly(starts: FloatArray, ends: FloatArray, numbers: IntArray) -> tuple[FloatArray, FloatArray]:
    """Divide a span among the neighbouring pieces of an item that all claim exactly it."""
    changed = (np.diff(starts) != 0) | (np.diff(ends) != 0) | (np.diff(numbers) != 0)
    group = row_pointers(changed)[: len(starts)]
    sizes = np.bincount(group)
    rank = np.arange(len(group)) - row_pointers(sizes)[group]
    share = (ends - starts) / sizes[group]
    return (starts + share * rank).astype(np.float32), (starts + share * (rank + 1)).astype(np.float32)
