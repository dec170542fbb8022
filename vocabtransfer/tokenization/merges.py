"""A BPE vocabulary as arrays: what its merges make of many words, how each token comes about, what they still can learn.

Two facts carry everything that is done to such vocabularies here. In the span of a token no merge ever crossed the
token's edges, so a token comes about in one way only, whatever stands around it: its *derivation*. And a merge added
behind all others fires only where the old merges have nothing left to do, so it changes no text that does not hold its
pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.tokenization.carry import BYTE_TOKENS
from vocabtransfer.tokenization.merge_kernels import EMPTY, fill_table, merge_words
from vocabtransfer.tokenization.ragged import Pieces, row_pointers, runs

IntArray = NDArray[np.int64]
Merge = tuple[str, str]

_UNICODE = 0x110000


@dataclass(frozen=True, eq=False)
class MergeModel:
    """The vocabulary strings by id ("" for a hole) and the merges, best first, of a BPE tokenizer.

    ``left``, ``right`` and ``products`` are ids, int32 (merges,). ``byte_ids`` are those of ``<0x00>`` to ``<0xFF>``,
    int32 (256,), None without byte fallback. ``whole_words`` says that a word that is a token is not merged at all.
    """

    strings: tuple[str, ...]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    products: NDArray[np.int32]
    byte_ids: NDArray[np.int32] | None
    whole_words: bool

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "MergeModel":
        """Read the model of a tokenizer.json whose model is BPE without word prefixes and suffixes."""
        model = document["model"]
        ids: Mapping[str, int] = model["vocab"]
        strings = [""] * (1 + max(ids.values(), default=-1))
        for text, i in ids.items():
            strings[i] = text
        merges = [(ids[a], ids[b], ids[a + b]) for a, b in model["merges"]]
        left, right, products = np.ascontiguousarray(np.array(merges, np.int32).reshape(-1, 3).T)
        complete = model["byte_fallback"] and all(token in ids for token in BYTE_TOKENS)
        return cls(
            tuple(strings),
            left,
            right,
            products,
            byte_ids=np.array([ids[token] for token in BYTE_TOKENS], np.int32) if complete else None,
            whole_words=bool(model.get("ignore_merges")),
        )

    def __len__(self) -> int:
        """Return the number of ids, holes included."""
        return len(self.strings)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of every string."""
        return {text: i for i, text in enumerate(self.strings) if text}

    @cached_property
    def characters(self) -> NDArray[np.int32]:
        """The id of every code point that is a token, -1 for the others, int32 (0x110000,)."""
        table = np.full(_UNICODE, -1, np.int32)
        single = {ord(text): i for text, i in self.ids.items() if len(text) == 1}
        table[list(single)] = list(single.values())
        return table

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        keys, ranks = empty_table(len(self.left))
        fill_table(keys, ranks, (self.left.astype(np.int64) << 32) | self.right)
        return keys, ranks

    def symbols(self, words: Sequence[str]) -> Pieces:
        """Return the ids that merging starts from: characters, their bytes where there is fallback, else -1."""
        ids = self.characters[np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)]
        starts = row_pointers(np.fromiter(map(len, words), np.int64, len(words)))
        unknown = ids < 0
        if self.byte_ids is not None and unknown.any():
            places = np.flatnonzero(unknown)
            text = "".join(words)
            missing = [text[i].encode() for i in places.tolist()]
            widths = np.ones(len(ids), np.int64)
            widths[places] = np.fromiter(map(len, missing), np.int64, len(missing))
            ids = np.repeat(ids, widths)
            ids[np.repeat(unknown, widths)] = self.byte_ids[np.frombuffer(b"".join(missing), np.uint8)]
            starts = row_pointers(widths)[starts]
        return Pieces(starts, np.ascontiguousarray(ids))

    def encode(self, words: Sequence[str]) -> Pieces:
        """Return the tokens of every word, as the tokenizer's model gives them; -1 where a character has no token."""
        pieces, _ = self._merged(words)
        if not self.whole_words:
            return pieces
        known = np.fromiter((self.ids.get(word, -1) for word in words), np.int32, len(words))
        lengths = np.where(known >= 0, 1, np.diff(pieces.indptr))
        starts = row_pointers(lengths)
        ids = np.empty(starts[-1], np.int32)
        ids[starts[:-1][known >= 0]] = known[known >= 0]
        merged = np.flatnonzero(known < 0)
        ids[runs(starts[merged], lengths[merged])] = pieces.ids[runs(pieces.indptr[merged], lengths[merged])]
        return Pieces(starts, ids)

    def derivations(self) -> "Derivations":
        """Find out how every token comes about by merges."""
        pieces, last = self._merged(self.strings)
        numbers = np.arange(len(self))
        alone = np.diff(pieces.indptr) == 1
        reached = np.zeros(len(self), np.bool_)
        reached[alone] = pieces.ids[pieces.indptr[:-1][alone]] == numbers[alone]
        merged = np.flatnonzero(reached & (last >= 0))
        left, right = np.full(len(self), -1, np.int64), np.full(len(self), -1, np.int64)
        left[merged], right[merged] = self.left[last[merged]], self.right[last[merged]]
        if self.byte_ids is not None:
            reached[self.byte_ids] = True
        return Derivations(reached, left, right, pieces)

    def tokens_by_merges(self, words: Sequence[str], weights: IntArray) -> IntArray:
        """Return how many tokens the words take with the first r merges only, for every r, int64 (merges + 1,).

        Exact for tokenizers that merge all words, so for all but those with ``whole_words``.
        """
        drops = np.zeros(len(self.left), np.int64)
        pieces = self.symbols(words)
        self._merge(pieces, weights, drops)
        total = int((np.diff(pieces.indptr) * weights).sum())
        return total - row_pointers(drops)

    def with_merges(self, new: Sequence[str], merges: Sequence[Merge]) -> "MergeModel":
        """Return the model with new strings behind the old ids and further merges behind the old ones."""
        strings = (*self.strings, *new)
        ids = {text: i for i, text in enumerate(strings) if text}
        added = np.array([(ids[a], ids[b], ids[a + b]) for a, b in merges], np.int32).reshape(-1, 3)
        return replace(
            self,
            strings=strings,
            left=np.append(self.left, added[:, 0]),
            right=np.append(self.right, added[:, 1]),
            products=np.append(self.products, added[:, 2]),
        )

    def _merged(self, words: Sequence[str]) -> tuple[Pieces, NDArray[np.int32]]:
        pieces = self.symbols(words)
        lengths, last = self._merge(pieces, np.zeros(0, np.int64), np.zeros(0, np.int64))
        return Pieces(row_pointers(lengths), pieces.ids[runs(pieces.indptr[:-1], lengths)]), last

    def _merge(self, pieces: Pieces, weights: IntArray, drops: IntArray) -> tuple[IntArray, NDArray[np.int32]]:
        lengths, last = merge_words(pieces.indptr, pieces.ids, *self._table, self.products, weights, drops)
        return lengths, last


@dataclass(frozen=True, eq=False)
class Derivations:
    """How the tokens of a BPE vocabulary come about.

    ``reached`` tells which tokens merges can produce, bool (V,); ``left`` and ``right`` are the two tokens that the
    last merge of each joins, int64 (V,), -1 for single characters, byte tokens and tokens that are not reached.
    ``pieces`` are the tokens that merging a token's own string ends in: itself, if it is reached.
    """

    reached: NDArray[np.bool_]
    left: IntArray
    right: IntArray
    pieces: Pieces


def empty_table(entries: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return a table of pairs, at most half full with that many entries: keys int64 (2**n,), values int32 (2**n,)."""
    size = 1 << max(4, (2 * entries).bit_length())
    return np.full(size, EMPTY, np.int64), np.empty(size, np.int32)
