"""The words of one side of a corpus in shards, numbered in order of appearance."""

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.priors import Side
from vocabtransfer.alignment.words import caseless


class GrowingVocabulary:
    """Words as written, without case, and as stems, with how often each word as written occurs."""

    def __init__(self, stem_length: int) -> None:
        self.surfaces: dict[str, int] = {}
        self.words: dict[str, int] = {}
        self.stems: dict[str, int] = {}
        self._counts = np.zeros(0)
        self._stem_length = stem_length
        self._word_of: list[int] = []
        self._stem_of: list[int] = []

    def number(self, words: list[str], counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Take in words as written and their occurrences; return their numbers, int32 (words, 3).

        The columns are the numbers among the words as written, the words without case, and the stems.
        """
        rows = np.empty((len(words), 3), dtype=np.int32)
        for place, surface in enumerate(words):
            number = self.surfaces.setdefault(surface, len(self.surfaces))
            if number == len(self._word_of):
                word = caseless(surface)
                self._word_of.append(self.words.setdefault(word, len(self.words)))
                self._stem_of.append(self.stems.setdefault(word[: self._stem_length], len(self.stems)))
            rows[place] = number, self._word_of[number], self._stem_of[number]
        if len(self.surfaces) > len(self._counts):
            grown = np.zeros(max(len(self.surfaces), 2 * len(self._counts)))
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        self._counts[rows[:, 0]] += counts
        return rows

    def totals(self) -> NDArray[np.float64]:
        """Return how often each word as written occurs."""
        return self._counts[: len(self.surfaces)]

    def word_totals(self) -> NDArray[np.float64]:
        """Return how often each word without case occurs."""
        return _sums(np.array(self._word_of, np.int64), self.totals(), len(self.words))

    def stem_totals(self) -> NDArray[np.float64]:
        """Return how often each stem occurs."""
        return _sums(np.array(self._stem_of, np.int64), self.totals(), len(self.stems))

    def side(self) -> Side:
        """Return the words without case and their stems."""
        stem_of = np.zeros(len(self.words), dtype=np.int32)
        stem_of[self._word_of] = self._stem_of
        return Side(list(self.words), stem_of, list(self.stems))


def _sums(places: NDArray[np.int64], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.bincount(places, weights, minlength=size).astype(np.float64)
