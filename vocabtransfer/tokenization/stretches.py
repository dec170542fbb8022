"""Cutting long stretches of text without a break: Thai, Lao, Khmer, Burmese, Chinese, Japanese, minified code, noise.

The time that learning from a stretch takes grows with the square of its length, and no token spans more than a few
characters of it. So stretches are cut before anything is learnt: where the kind of character or the script changes if
such a place is near, else between two grapheme clusters, never between a vowel written first and its consonant or after a
sign that joins two consonants.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping

import regex

#: Characters that stay together at most; cuts fall into the second half of so many.
LONGEST_STRETCH = 128
_LONG = regex.compile(rf"\S{{{LONGEST_STRETCH + 1},}}|\s{{{LONGEST_STRETCH + 1},}}")
# Zero-width spaces part words in Khmer and Burmese: as good a place as punctuation.
_RUNS = regex.compile(
    r"\p{Han}+|\p{Hiragana}+|[\p{Katakana}\u30fc]+|[[\p{L}\p{M}\u200c\u200d]--[\p{Han}\p{Hiragana}\p{Katakana}\u30fc]]+"
    r"|\p{N}+|\s+|[^\s\p{L}\p{M}\p{N}\u200c\u200d]+",
    regex.VERSION1,
)
_CLUSTER = regex.compile(r"\X")
# Vowels of Thai and Lao that are written before the consonant they follow in speech.
_VOWELS_FIRST = frozenset("เแโใไເແໂໃໄ")
_VIRAMA = 9  # the canonical combining class of what joins consonants


def cut_line(line: str) -> list[str]:
    """Return the parts of a line: itself, or more where it has stretches without (or of) white space that are long.

    >>> [len(part) for part in cut_line("short " + "ก" * 300)], cut_line("a b")
    ([134, 128, 44], ['a b'])
    """
    parts: list[str] = []
    begun = 0
    for match in _LONG.finditer(line):
        pieces = cut_stretch(match.group())
        parts += [line[begun : match.start()] + pieces[0], *pieces[1:-1]]
        begun = match.end() - len(pieces[-1])
    parts.append(line[begun:])
    return parts


def cut_stretch(text: str, longest: int = LONGEST_STRETCH) -> list[str]:
    """Return the parts of a stretch, none longer than ``longest`` characters; joined they are the text again."""
    parts = []
    start = 0
    while len(text) - start > longest:
        window = text[start : start + longest + 1]
        end = _best_cut(window, longest)
        parts.append(window[:end])
        start += end
    parts.append(text[start:])
    return parts


def cut_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counted stretches with the long ones cut, sorted; what is the same afterwards is counted together."""
    if all(len(word) <= LONGEST_STRETCH for word in counts):
        return dict(counts)
    short: Counter[str] = Counter()
    for word, count in counts.items():
        for part in cut_stretch(word):
            short[part] += count
    return dict(sorted(short.items()))


def _best_cut(window: str, longest: int) -> int:
    """Return where to cut a window of one character more than may stay together."""
    half = longest // 2
    runs: list[int] = [match.start() for match in _RUNS.finditer(window)]
    changes = [place for place in runs if half <= place <= longest]
    # A change of script inside a word is worth less than one between a word and what is none.
    clean = [place for place in changes if not (_lettered(window[place - 1]) and _lettered(window[place]))]
    if clean or changes:
        return (clean or changes)[-1]
    safe: list[int] = [
        match.start()
        for match in _CLUSTER.finditer(window)
        if half <= match.start() <= longest and _is_safe(window[match.start() - 1])
    ]
    return safe[-1] if safe else longest


def _lettered(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _is_safe(before: str) -> bool:
    return before not in _VOWELS_FIRST and unicodedata.combining(before) != _VIRAMA and before not in "\u200c\u200d"
