"""Text into words: the unit of word alignment and of the shipped tables.

The rules are those a reader would name. A run of letters with their marks is a word, apostrophes and hyphens inside it
included; a run of digits is a word; every other symbol stands alone. Scripts written without spaces are cut where a cut
is always safe: Han and kana at every character, Thai, Lao, Khmer and Burmese at every grapheme cluster. Nothing is
changed on the way: a word is a slice of the text.

Many orthographies have a letter that people type as a quotation mark: Hawaiian ‘ōlelo, Uzbek bog‘, Maltese ta’, Afrikaans
’n. Inside a word such a mark belongs to it; at an edge it does unless it quotes, which `lettered_marks` decides.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import regex
from numpy.typing import NDArray

from vocabtransfer.alignment.edge_marks import EDGE_MARKS, NO_MARKS, lettered_marks
from vocabtransfer.errors import VocabTransferError

# Lao, Khmer ... have no spaces between words; a grapheme cluster keeps a consonant together with its vowels and tones.
_CLUSTER_SCRIPTS = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CHARACTER_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc"
# The colon of Budu and others is a letter to its readers, though Unicode calls it a symbol.
_LETTER = rf"[[\p{{L}}\ua789]--[{_CLUSTER_SCRIPTS}{_CHARACTER_SCRIPTS}]]"
# Marks, the joiners of Indic and Persian spelling, Mongolian's vowel separator, the soft hyphen, and the emoji selectors
# some editors leave behind.
_REST = rf"[[\p{{L}}\p{{M}}\ua789\u180e\u200c\u200d\u00ad]--[{_CLUSTER_SCRIPTS}{_CHARACTER_SCRIPTS}]]"
_LETTER_REST = rf"{_REST}*+"
# What is typed for an apostrophe, an ʻokina, a glottal stop (the true letters ʻ ʼ ʾ ʿ ʹ ꞌ are letters to Unicode, too);
# middle dots; Hebrew's geresh, gershayim and maqaf; the hyphens of Armenian, Canadian syllabics and Mongolian; hyphens.
_APOSTROPHES = r"'`\u00b4\u2018\u2019\u201b\u2032\u055a\uff07"
_INNER = rf"[{_APOSTROPHES}\u00b7\u0387\u2027\u05f3\u05f4\u05be\u058a\u1400\u1806\-\u2010\u2011]"
# In Hebrew a quotation mark between two letters is a gershayim.
_GERSHAYIM = r"(?<=\p{Hebrew})[\"\u201c\u201d](?=\p{Hebrew})"
# A geresh or the elision of Greek may end a word; neither quotes.
_LAST = r"[\u05f3\u1fbd\u1fbf]?+"

WORD = regex.compile(
    rf"{_LETTER}{_LETTER_REST}(?:(?:{_INNER}|{_GERSHAYIM}){_LETTER}{_LETTER_REST})*+{_LAST}"
    r"|\p{Nd}\uFE0F?\u20E3"  # a keycap emoji starts with a digit, which must not be cut off
    r"|\p{Nd}++"
    rf"|[{_CHARACTER_SCRIPTS}][\p{{M}}\uFF9E\uFF9F]*+"
    rf"|(?=[{_CLUSTER_SCRIPTS}\p{{Extended_Pictographic}}\p{{Regional_Indicator}}])\X"
    # Bidi marks, zero-width spaces and other controls carry nothing that could be aligned: they count as space.
    r"|[^\s\p{Cc}\p{Cf}]\p{M}*+",
    regex.VERSION1,
)
#: Different stretches between spaces that are held at a time: some 30 MB.
_MOST_CHUNKS = 300_000
_BEGINS = regex.compile(_LETTER, regex.VERSION1)
_GOES_ON = regex.compile(_REST, regex.VERSION1)
#: All that is typed for one letter or one hyphen, by what stands for it when words are looked up.
_SAME = {
    "\u02bc": "'`\u00b4\uff07\u2018\u2019\u201b\u2032\u055a\u02b9\u02bb\u02bd\u02be\u02bf\ua78b\ua78c\u05f3",
    "\u05f4": '"\u201c\u201d',
    "\u00b7": "\u0387\u2027",
    "-": "\u2010\u2011",
    "": "\u00ad",
}
_FOLDED = str.maketrans({mark: chosen for chosen, marks in _SAME.items() for mark in marks})


def split_words(text: str) -> list[str]:
    """Return the words of ``text`` in order, each a slice of it.

    >>> split_words("Don't panic: китап-ханә, 3.14 कुत्ते 猫だ")
    ["Don't", 'panic', ':', 'китап-ханә', ',', '3', '.', '14', 'कुत्ते', '猫', 'だ']
    >>> split_words("ka ‘ōlelo Hawai‘i"), split_words("bog‘ ‘quoted’")
    (['ka', '‘ōlelo', 'Hawai‘i'], ['bog‘', '‘', 'quoted', '’'])
    """
    if EDGE_MARKS.search(text) and any(lettered_marks(text)):
        return [text[start:stop] for start, stop in _spans(text)]
    words: list[str] = WORD.findall(text)
    return words


def word_spans(text: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the words of ``text`` and the character offset at which each starts, int64 of the same length.

    >>> words, starts = word_spans("ике китап")
    >>> words, starts.tolist()
    (['ике', 'китап'], [0, 4])
    """
    spans = _spans(text)
    return [text[start:stop] for start, stop in spans], np.array([start for start, _ in spans], dtype=np.int64)


def split_lines(lines: Iterable[str]) -> list[list[str]]:
    """Return the words of every line of a batch."""
    return [split_words(line) for line in lines]


class WordCounts:
    """Words counted line by line: what stands between spaces is counted first, and split into words once for all."""

    def __init__(self) -> None:
        self._words: Counter[str] = Counter()
        self._chunks: Counter[str] = Counter()

    def add(self, line: str) -> None:
        """Count the words of a line, as `split_words` gives them."""
        if EDGE_MARKS.search(line):  # whether a mark is a letter depends on the rest of the line
            self._words.update(split_words(line))
            return
        self._chunks.update(line.split())
        if len(self._chunks) > _MOST_CHUNKS:
            self._split()

    def counts(self) -> Counter[str]:
        """Return how often each word was met."""
        self._split()
        return self._words

    def _split(self) -> None:
        for chunk, count in self._chunks.items():
            for word in split_words(chunk):
                self._words[word] += count
        self._chunks.clear()


def in_order(counts: Mapping[str, int], named: str) -> dict[str, float]:
    """Return counted words in the order of the words; `VocabTransferError` naming the text where there is none."""
    if not counts:
        raise VocabTransferError(f"{named}: there is no word in the text.")
    return {word: float(count) for word, count in sorted(counts.items())}


def fold_marks(word: str) -> str:
    """Return a word with one mark in place of all that are typed for the same letter, so that its spellings meet.

    >>> fold_marks("O‘zbek") == fold_marks("O'zbek") == fold_marks("Oʻzbek"), fold_marks("col‧lecció"), fold_marks("’")
    (True, 'col·lecció', '’')
    """
    return word.translate(_FOLDED) if len(word) > 1 else word


def caseless(word: str) -> str:
    """Return a word as words are compared: without case, with one mark for all that are typed for the same letter."""
    return fold_marks(word.casefold())


def begins_word(word: str) -> bool:
    """Say whether what `split_words` gave is a word or number, and no punctuation.

    >>> begins_word("‘ōlelo"), begins_word("1st"), begins_word("‘")
    (True, True, False)
    """
    return word[:1].isalnum() or (EDGE_MARKS.match(word) is not None and word[1:2].isalpha())


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where words start and stop; a mark that is a letter is joined to the word that it touches."""
    first, last = lettered_marks(text) if EDGE_MARKS.search(text) else NO_MARKS
    spans: list[tuple[int, int]] = []
    joins = False
    for match in WORD.finditer(text):
        start, stop = match.span()
        if joins or (start in last and spans and spans[-1][1] == start and _GOES_ON.match(text, start - 1)):
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
        joins = start in first and _BEGINS.match(text, stop) is not None
    return spans
