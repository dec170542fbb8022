"""Words of two languages that are written alike once both are romanized: names, loans and true cognates.

Romanized words that are equal, or near by normalised edit distance, are evidence for a word aligner that knows nothing
yet. Candidates come from shared letter pairs, by sparse matrix products over blocks of words; the bound used to choose
them never loses a pair.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist
from scipy import sparse

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import track
from vocabtransfer.public import public
from vocabtransfer.scripts import SCRIPTS, dominant_scripts
from vocabtransfer.transliteration.base import Transliterator

_BLOCK = 512
# Words of up to three letters are alike by chance.
SHORTEST = 4


@dataclass(frozen=True)
class Cognates:
    """Pairs of similar words, sorted by the first word, then from the most similar on.

    ``first`` and ``second`` (int64) index the two word lists; ``similarity`` (float32, in (0, 1]) is 1 for words that
    are equal once romanized, else 1 - edits / length of the longer.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def matrix(self, shape: tuple[int, int]) -> sparse.csr_array:
        """Return the similarities as CSR float32 of shape (first words, second words)."""
        return sparse.coo_array((self.similarity, (self.first, self.second)), shape=shape).tocsr()


def romanized_words(words: Sequence[str], transliterator: Transliterator) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the different romanized words, sorted, and for each word the index of its own (int64, len(words))."""
    if not len(words):
        return (), np.zeros(0, dtype=np.int64)
    made = list(transliterator.romanize(words))
    different = sorted(set(made))
    index = {word: place for place, word in enumerate(different)}
    return tuple(different), np.array([index[word] for word in made], dtype=np.int64)


@public
def cognates(
    words_a: Sequence[str],
    words_b: Sequence[str],
    transliterator: Transliterator,
    *,
    transliterator_b: Transliterator | None = None,
    least: float = 0.75,
    at_most: int = 5,
) -> Cognates:
    """Find the words of one list that are written like words of the other once both are romanized.

    Case, accents, apostrophes and hyphens do not count. Equal words match whatever their length if they have a letter;
    similar ones have at least four letters.

    Args:
        words_a: words of one language.
        words_b: words of the other.
        transliterator: romanizes ``words_a``, and ``words_b`` too unless that has its own.
        transliterator_b: romanizes ``words_b``.
        least: the least similarity, in (0.5, 1]; 1 for equal words only.
        at_most: how many matches to keep for a word of ``words_a``, the most similar first (ties: the earlier word).

    Raises `UsageError` for a ``least`` or ``at_most`` out of range.
    """
    if not 0.5 < least <= 1:
        raise UsageError(f"The least similarity of cognates lies above 0.5 and up to 1, not at {least}.")
    if at_most < 1:
        raise UsageError(f"At least one match must be kept for a word, not {at_most}.")
    folded_a, owners_a = _folded(words_a, transliterator)
    folded_b, owners_b = _folded(words_b, transliterator_b or transliterator)
    pairs = list(_similar(folded_a, folded_b, least))
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    similarity = np.concatenate([pair[2] for pair in pairs])
    return _best(*_spread(first, second, similarity, owners_a, owners_b), at_most)


def _folded(words: Sequence[str], transliterator: Transliterator) -> tuple[list[str], sparse.csr_array]:
    """Return the different folded words and which words each stands for (CSR, folded x words)."""
    # Latin letters lose their accents first: uroman writes the Turkish ü as the German one, ue.
    latin = dominant_scripts(words) == SCRIPTS.index("Latn")
    plain = (_without_marks(word) if bare else word for word, bare in zip(words, latin.tolist(), strict=True))
    folded = [_fold(word) for word in transliterator.romanize(plain)]
    different = sorted(set(folded) - {""})
    index = {word: place for place, word in enumerate(different)}
    owned = np.array([(index[text], place) for place, text in enumerate(folded) if text], dtype=np.int64).reshape(-1, 2)
    ones = np.ones(len(owned), dtype=np.int64)
    return different, sparse.coo_array((ones, owned.T), shape=(len(different), len(words))).tocsr()


def _without_marks(word: str) -> str:
    letters = unicodedata.normalize("NFKD", word)
    return "".join(character for character in letters if unicodedata.category(character) != "Mn")


def _fold(word: str) -> str:
    letters = _without_marks(word).casefold()
    letters = "".join(character for character in letters if character.isalnum())
    return letters if any(character.isalpha() for character in letters) else ""


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def _similar(a: list[str], b: list[str], least: float) -> Iterator[Pairs]:
    """Yield pairs of different folded words with their similarity, equal ones first."""
    places = {word: place for place, word in enumerate(b)}
    equal = np.array([(i, places[word]) for i, word in enumerate(a) if word in places], dtype=np.int64).reshape(-1, 2)
    yield equal[:, 0], equal[:, 1], np.ones(len(equal), dtype=np.float32)
    if least == 1:
        return
    long_a, lengths_a = _by_length(a)
    long_b, lengths_b = _by_length(b)
    table_a, table_b = _letter_pairs([a[i] for i in long_a], [b[j] for j in long_b])
    blocks = [
        (start, min(start + _BLOCK, stop)) for first, stop in _runs(lengths_a) for start in range(first, stop, _BLOCK)
    ]
    for start, stop in track(blocks, "comparing words"):
        length = int(lengths_a[start])
        # Of the longer word's letters, one in so many may be another: the lengths differ by no more than that.
        low, high = np.searchsorted(lengths_b, (length * least - 1e-6, int(length / least + 1e-6) + 1))
        shared = (table_a[start:stop] @ table_b[low:high].T.tocsr()).tocoo()
        longer = np.maximum(length, lengths_b[low + shared.col])
        # n letters have n + 1 pairs, edges included, and one edit breaks two of them at most.
        edits = np.floor((1 - least) * longer + 1e-6)
        possible = (shared.data >= longer + 1 - 2 * edits) & (edits > 0)
        first, second = long_a[start + shared.row[possible]], long_b[low + shared.col[possible]]
        scores = _scores([a[i] for i in first.tolist()], [b[j] for j in second.tolist()])
        near = (scores >= np.float32(least) - 1e-6) & (scores < 1)
        yield first[near], second[near], scores[near]


def _by_length(words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the words that are long enough, shortest first, and their lengths."""
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] >= SHORTEST]
    return order, lengths[order]


def _runs(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where each run of equal lengths starts and stops."""
    starts = np.flatnonzero(np.diff(lengths, prepend=-1)).tolist()
    return list(pairwise([*starts, len(lengths)]))


def _scores(first: list[str], second: list[str]) -> NDArray[np.float32]:
    if not first:
        return np.zeros(0, dtype=np.float32)
    scores = cpdist(first, second, scorer=Levenshtein.normalized_similarity, dtype=np.float32, workers=1)
    return np.asarray(scores, dtype=np.float32)


def _letter_pairs(a: list[str], b: list[str]) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return which pairs of letters each word has (CSR, 0 and 1); a pair that comes twice counts as two."""
    index: dict[tuple[str, int], int] = {}
    tables = []
    for words in (a, b):
        columns: list[int] = []
        ends = [0]
        for word in words:
            seen: dict[str, int] = {}
            padded = f" {word} "
            for place in range(len(padded) - 1):
                pair = padded[place : place + 2]
                seen[pair] = seen.get(pair, 0) + 1
                columns.append(index.setdefault((pair, seen[pair]), len(index)))
            ends.append(len(columns))
        tables.append((columns, ends))
    return tuple(
        sparse.csr_array((np.ones(len(columns), dtype=np.int16), columns, ends), shape=(len(ends) - 1, len(index)))
        for columns, ends in tables
    )


def _spread(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    similarity: NDArray[np.float32],
    owners_a: sparse.csr_array,
    owners_b: sparse.csr_array,
) -> Pairs:
    """Turn pairs of folded words into pairs of the words that they stand for."""
    for owners, which in ((owners_a, 0), (owners_b, 1)):
        side = (first, second)[which]
        counts = np.diff(owners.indptr)[side]
        repeated = np.repeat(np.arange(len(side)), counts)
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts) - counts, counts)
        words = owners.indices[owners.indptr[side][repeated] + within].astype(np.int64)
        similarity = similarity[repeated]
        first, second = (words, second[repeated]) if which == 0 else (first[repeated], words)
    return first, second, similarity


def _best(
    first: NDArray[np.int64], second: NDArray[np.int64], similarity: NDArray[np.float32], at_most: int
) -> Cognates:
    order = np.lexsort((second, -similarity, first))
    first, second, similarity = first[order], second[order], similarity[order]
    starts = np.searchsorted(first, first, side="left")
    kept = np.arange(len(first)) - starts < at_most
    return Cognates(first[kept], second[kept], similarity[kept])
