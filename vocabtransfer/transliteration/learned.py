"""Learn from examples what each character of a script becomes, and in front of or after which neighbours.

A romanizer is seen as a function from a character and its neighbours to text. What it did to a corpus's words is turned
into a decision list for each character: exceptions first, each asking for neighbours out of a set, and at last what the
character becomes otherwise.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vocabtransfer.transliteration.base import Piece

# How far a neighbour may be, by preference: the next character, the previous one, the second next ...
PLACES = (1, -1, 2, -2, 3, -3)
_DEEPEST = 4

# Stands for whatever ends a word: a space, a digit, punctuation, the edge of the text.
EDGE = ""

Window = tuple[str, ...]
Entries = list[tuple[Window, str, int]]


@dataclass(frozen=True)
class Exceptional:
    """A character becomes ``text`` where the neighbour at every place is one of a set (`EDGE`: the word ends there)."""

    neighbours: Mapping[int, frozenset[str]]
    text: str


@dataclass(frozen=True)
class Learned:
    """What characters become: ``usual`` for each, ``exceptions`` in the order in which they are to be tried."""

    usual: Mapping[str, str]
    exceptions: Mapping[str, Sequence[Exceptional]]

    @property
    def count(self) -> int:
        """The number of exceptions."""
        return sum(map(len, self.exceptions.values()))


def is_word_character(character: str) -> bool:
    """Tell whether a character belongs to a word: letters, marks and joiners."""
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Cf"


def labels(word: str, pieces: Iterable[Piece]) -> list[str]:
    """Return what each character of a word becomes: a piece of several that change is written at its first."""
    found: list[str] = []
    for start, end, text in pieces:
        found += word[start:end] if text == word[start:end] else [text, *[""] * (end - start - 1)]
    return found


def learn(words: Mapping[str, int], labelled: Callable[[str], Sequence[str]], most_exceptions: int) -> Learned:
    """Learn what characters become from words with their counts; ``labelled`` gives the text for each character.

    With more than ``most_exceptions`` exceptions, the rarest are left out.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for word, count in words.items():
        for character, text in zip(word, labelled(word), strict=True):
            counts[character][text] += count
    ambiguous = {character for character, texts in counts.items() if len(texts) > 1}
    entries: dict[str, Counter[tuple[Window, str]]] = defaultdict(Counter)
    for word, count in words.items():
        if ambiguous.isdisjoint(word):
            continue
        around = _Around(word)
        for place, (character, text) in enumerate(zip(word, labelled(word), strict=True)):
            if character in ambiguous:
                entries[character][around.window(place), text] += count
    listed = {
        character: [(window, text, count) for (window, text), count in sorted(found.items())]
        for character, found in sorted(entries.items())
    }
    least = 1
    while True:
        learned = _decisions(counts, listed, least)
        if learned.count <= most_exceptions:
            return learned
        least *= 2


def _decisions(counts: Mapping[str, Counter[str]], listed: Mapping[str, Entries], least: int) -> Learned:
    usual = {character: _most(texts) for character, texts in counts.items()}
    exceptions = {
        character: tuple(
            Exceptional(neighbours, text) for neighbours, text in _split(entries, {}, usual[character], least)
        )
        for character, entries in listed.items()
    }
    return Learned(usual, {character: found for character, found in exceptions.items() if found})


def _most(texts: Mapping[str, int]) -> str:
    return min(texts, key=lambda text: (-texts[text], text))


def _tally(entries: Entries) -> Counter[str]:
    tally: Counter[str] = Counter()
    for _, text, count in entries:
        tally[text] += count
    return tally


def _split(
    entries: Entries, given: Mapping[int, frozenset[str]], otherwise: str, least: int
) -> list[tuple[Mapping[int, frozenset[str]], str]]:
    """Return the decision list for one character where its neighbours are ``given``.

    Where none of the list fits, the character becomes ``otherwise``. Splits at the neighbour that leaves the fewest
    errors; one that mends fewer than ``least`` occurrences is not made.
    """
    tally = _tally(entries)
    errors = tally.total() - tally[otherwise]
    if errors < least or len(given) == _DEEPEST:
        return []
    best: tuple[int, int, dict[str, Entries]] | None = None
    for order, place in enumerate(PLACES):
        if place in given:
            continue
        parts: dict[str, Entries] = defaultdict(list)
        for entry in entries:
            parts[entry[0][order]].append(entry)
        left = sum(part.total() - max(part.values()) for part in map(_tally, parts.values()))
        if best is None or left < best[0]:
            best = left, place, parts
        if left == 0:
            break
    if best is None or (best[0] == tally.total() - max(tally.values()) and len(best[2]) == 1):
        return []
    _, place, parts = best
    return _listed(parts, place, given, otherwise, least)


def _listed(
    parts: Mapping[str, Entries], place: int, given: Mapping[int, frozenset[str]], otherwise: str, least: int
) -> list[tuple[Mapping[int, frozenset[str]], str]]:
    """Return the decisions of every part; neighbours with one and the same result share one."""
    specific: list[tuple[Mapping[int, frozenset[str]], str]] = []
    together: dict[str, set[str]] = defaultdict(set)
    mended: Counter[str] = Counter()
    for neighbour, part in sorted(parts.items()):
        tally = _tally(part)
        text = _most(tally)
        deeper = _split(part, {**given, place: frozenset([neighbour])}, text, least)
        specific += deeper
        if text != otherwise:
            together[text].add(neighbour)
            mended[text] += tally[text] - tally[otherwise]
    for text, neighbours in sorted(together.items(), key=lambda item: item[0]):
        if mended[text] >= least:
            specific.append(({**given, place: frozenset(neighbours)}, text))
    return specific


class _Around:
    """The neighbours of each character of a word, at the places of `PLACES`."""

    def __init__(self, word: str):
        # A neighbour beyond an edge is an edge too: what is there is another word.
        self._symbols = [character if is_word_character(character) else EDGE for character in word]

    def window(self, place: int) -> Window:
        """Return the neighbours of the character at a place of the word."""
        return tuple(self._at(place, offset) for offset in PLACES)

    def _at(self, place: int, offset: int) -> str:
        step = 1 if offset > 0 else -1
        for nearer in range(place + step, place + offset, step):
            if not 0 <= nearer < len(self._symbols) or self._symbols[nearer] == EDGE:
                return EDGE
        target = place + offset
        return self._symbols[target] if 0 <= target < len(self._symbols) else EDGE
