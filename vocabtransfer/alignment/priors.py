"""What is known of two vocabularies before any sentence is read: which stems may well translate each other.

Names, numbers and punctuation stand in both languages with the same letters; numbers may be written with other digits;
a romanizer brings cognates of two scripts together; a dictionary names translations. All of it is only a prior: a pair
counts as if it had been linked once, and only where its words share a sentence.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from vocabtransfer.alignment.words import begins_word, caseless, split_words
from vocabtransfer.errors import VocabTransferError

Romanizer = Callable[[str], str]

# A sound class that half the vocabulary falls into says nothing.
_MOST_COGNATES = 64
_LEAST_CONSONANTS = 3
_SKELETON = 4
_SPELLINGS = {"ph": "f", "ck": "k", "ch": "k", "kh": "k", "th": "t", "dh": "d", "gh": "g", "sh": "s", "zh": "s"}
_LETTERS = str.maketrans({"c": "k", "q": "k", "z": "s", "w": "v", "j": "i", "y": "i"} | {"x": "ks"})
_DIGRAPHS = regex.compile("|".join(_SPELLINGS))
_NOT_CONSONANTS = regex.compile(r"[^bdfghklmnprstv]")
_DOUBLED = regex.compile(r"(.)\1+")


class Prior(NamedTuple):
    """Pairs of stems with a larger prior, by source stem: ``columns[row[s]:row[s + 1]]`` (int64, int32), sorted."""

    row: NDArray[np.int64]
    columns: NDArray[np.int32]


class Side(NamedTuple):
    """One vocabulary: its words without case, the stem of each (int32), and the stems."""

    words: Sequence[str]
    stem_of: NDArray[np.int32]
    stems: Sequence[str]


def find_prior(
    source: Side,
    target: Side,
    *,
    romanizer: Romanizer | None = None,
    dictionary: Iterable[tuple[str, str]] = (),
) -> Prior:
    """Return the pairs of stems that are written alike, sound alike once romanized, or stand in a dictionary.

    Dictionary entries of several words are passed over. Raises `VocabTransferError` when the romanizer gives anything
    else than text.
    """
    pairs = [_equal(source.stems, target.stems)]
    if romanizer is not None:
        pairs.append(_cognates(source, target, romanizer))
    pairs.append(_translations(source, target, dictionary))
    joined = np.concatenate(pairs)
    keys = np.unique(joined[:, 0] * max(len(target.stems), 1) + joined[:, 1])
    stems, columns = np.divmod(keys, max(len(target.stems), 1))
    row = np.concatenate([[0], np.cumsum(np.bincount(stems, minlength=len(source.stems)))])
    return Prior(row.astype(np.int64), columns.astype(np.int32))


def _equal(source: Sequence[str], target: Sequence[str]) -> NDArray[np.int64]:
    index: defaultdict[str, list[int]] = defaultdict(list)
    for number, stem in enumerate(target):
        index[_plain_digits(stem)].append(number)
    found = [(number, other) for number, stem in enumerate(source) for other in index.get(_plain_digits(stem), ())]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _plain_digits(word: str) -> str:
    """Return a number with the digits 0 to 9, whatever digits it was written with; any other word as it is."""
    if word.isascii() or not word.isdecimal():
        return word
    return "".join(str(unicodedata.decimal(digit)) for digit in word)


def _cognates(source: Side, target: Side, romanizer: Romanizer) -> NDArray[np.int64]:
    sides = [_by_skeleton(side, romanizer) for side in (source, target)]
    pairs = []
    for skeleton, stems in sides[0].items():
        others = sides[1].get(skeleton, set())
        if len(stems) * len(others) <= _MOST_COGNATES:
            pairs += [(stem, other) for stem in sorted(stems) for other in sorted(others)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _by_skeleton(side: Side, romanizer: Romanizer) -> dict[str, set[int]]:
    found: defaultdict[str, set[int]] = defaultdict(set)
    for word, stem in zip(side.words, side.stem_of.tolist(), strict=True):
        if word[:1].isnumeric() or not begins_word(word):
            continue
        romanized = romanizer(word)
        if not isinstance(romanized, str):
            raise VocabTransferError(f"the romanizer made {type(romanized).__name__} of {word!r}: text is needed.")
        skeleton = _skeleton(romanized)
        if len(skeleton) >= _LEAST_CONSONANTS:
            found[skeleton].add(stem)
    return found


def _skeleton(romanized: str) -> str:
    """Return the first consonants of a word in Latin letters, those that languages exchange made one.

    >>> _skeleton("computer"), _skeleton("kompyuter"), _skeleton("photography"), _skeleton("fotografiya")
    ('kmpt', 'kmpt', 'ftgr', 'ftgr')
    """
    plain = unicodedata.normalize("NFKD", romanized.casefold())
    spelled = _DIGRAPHS.sub(lambda match: _SPELLINGS[match[0]], plain).translate(_LETTERS)
    return str(_DOUBLED.sub(r"\1", _NOT_CONSONANTS.sub("", spelled)))[:_SKELETON]


def _translations(source: Side, target: Side, dictionary: Iterable[tuple[str, str]]) -> NDArray[np.int64]:
    indices = [{word: number for number, word in enumerate(side.words)} for side in (source, target)]
    pairs = []
    for entry in dictionary:
        words = [list(map(caseless, split_words(text))) for text in entry]
        if len(words[0]) == len(words[1]) == 1:
            found = [index.get(word[0]) for index, word in zip(indices, words, strict=True)]
            if found[0] is not None and found[1] is not None:
                pairs.append((source.stem_of[found[0]], target.stem_of[found[1]]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
