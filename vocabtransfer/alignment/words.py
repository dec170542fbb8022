"""Text into words: the unit of word alignment and of the shipped tables.

The rules are those a reader would name. A run of letters with their marks is a word, apostrophes and hyphens inside it
included; a run of digits is a word; every other symbol stands alone. Scripts written without spaces are cut where a cut
is always safe: Han and kana at every character, Thai, Lao, Khmer and Burmese at every grapheme cluster. Nothing is
changed on the way: a word is a slice of the text.
"""

from collections.abc import Iterable

import numpy as np
import regex
from numpy.typing import NDArray

# Lao, Khmer ... have no spaces between words; a grapheme cluster keeps a consonant together with its vowels and tones.
_CLUSTER_SCRIPTS = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CHARACTER_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc"
_LETTER = rf"[\p{{L}}--[{_CLUSTER_SCRIPTS}{_CHARACTER_SCRIPTS}]]"
# Marks, the joiners of Indic and Persian spelling, the soft hyphen, and the emoji selectors some editors leave behind.
_LETTER_REST = rf"[[\p{{L}}\p{{M}}\u200c\u200d\u00ad]--[{_CLUSTER_SCRIPTS}{_CHARACTER_SCRIPTS}]]*+"
# Apostrophes, Catalan's middle dot, Hebrew's geresh, gershayim and maqaf, Armenian's hyphen, hyphens.
_INNER = r"['\u2019\u02bc\u00b7\u05f3\u05f4\u05be\u058a\-\u2010\u2011]"

WORD = regex.compile(
    rf"{_LETTER}{_LETTER_REST}(?:{_INNER}{_LETTER}{_LETTER_REST})*+"
    r"|\p{Nd}\uFE0F?\u20E3"  # a keycap emoji starts with a digit, which must not be cut off
    r"|\p{Nd}++"
    rf"|[{_CHARACTER_SCRIPTS}][\p{{M}}\uFF9E\uFF9F]*+"
    rf"|(?=[{_CLUSTER_SCRIPTS}\p{{Extended_Pictographic}}\p{{Regional_Indicator}}])\X"
    # Bidi marks, zero-width spaces and other controls carry nothing that could be aligned: they count as space.
    r"|[^\s\p{Cc}\p{Cf}]\p{M}*+",
    regex.VERSION1,
)


def split_words(text: str) -> list[str]:
    """Return the words of ``text`` in order, each a slice of it.

    >>> split_words("Don't panic: китап-ханә, 3.14 कुत्ते 猫だ")
    ["Don't", 'panic', ':', 'китап-ханә', ',', '3', '.', '14', 'कुत्ते', '猫', 'だ']
    """
    words: list[str] = WORD.findall(text)
    return words


def word_spans(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the words of ``text`` and the character offset at which each starts, int64 of the same length.

    >>> words, starts = word_spans("ике китап")
    >>> words, starts.tolist()
    (['ике', 'китап'], [0, 4])
    """
    matches = list(WORD.finditer(text))
    return [match.group() for match in matches], np.array([match.start() for match in matches], dtype=np.int64)


def split_lines(lines: Iterable[str]) -> list[list[str]]:
    """Return the words of every line of a batch."""
    find = WORD.findall
    return [find(line) for line in lines]
