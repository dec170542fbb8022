"""Cutting texts into units that can be romanized one by one, and remembering what each became."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from vocabtransfer.transliteration.base import Digits, Piece, Romanized, romanized
from vocabtransfer.transliteration.units import Units

# Units longer than this come once: whole sentences of scripts that do without spaces.
LONGEST_CACHED = 40
# About 150 MB of words and what became of them; what comes after is romanized anew each time.
MOST_CACHED = 1_000_000


class CachedTransliterator(ABC):
    """A transliterator that works unit by unit: subclasses say how to cut a text and what a unit becomes.

    Not for several threads at once. `__init__` takes the language's ISO 639-3 code, the digits policy and the units.
    """

    name: ClassVar[str]

    def __init__(self, language: str | None, digits: Digits, units: Units):
        self.language = language
        self.digits: Digits = digits
        self._units = units
        self._texts = _Remembered(self._romanize_unit)
        self._replaced = lambda match: self._texts[match[0]]

    @property
    @abstractmethod
    def version(self) -> str:
        """What the result depends on besides the arguments."""

    @abstractmethod
    def _romanize_unit(self, unit: str) -> str:
        """Return a unit romanized."""

    @abstractmethod
    def _unit_pieces(self, unit: str) -> list[Piece]:
        """Return the stretches of a unit and what each becomes."""

    def romanize(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield each text romanized; texts are read one at a time."""
        pattern_for, replaced = self._units.pattern_for, self._replaced
        for text in texts:
            yield text if text.isascii() else pattern_for(text).sub(replaced, text)

    def romanize_with_spans(self, texts: Iterable[str]) -> Iterator[Romanized]:
        """Yield each text romanized, with the span of the input that each output character came from."""
        for text in texts:
            yield romanized(self.pieces(text), len(text))

    def pieces(self, text: str) -> list[Piece]:
        """Return the stretches of one text and what each becomes, in order and without gaps."""
        found: list[Piece] = []
        done = 0
        for match in self._units.pattern_for(text).finditer(text):
            found += _unchanged(text, done, match.start())
            done = match.end()
            if match[0].isascii():
                found += _unchanged(text, match.start(), done)
            else:
                offset = match.start()
                found += [(start + offset, end + offset, made) for start, end, made in self._unit_pieces(match[0])]
        return found + _unchanged(text, done, len(text))

    def uncached(self, text: str) -> str:
        """Return a text romanized without a look at what was romanized before."""
        return "".join([piece[2] for piece in self.pieces(text)])


def _unchanged(text: str, start: int, end: int) -> list[Piece]:
    return [(position, position + 1, text[position]) for position in range(start, end)]


class _Remembered(dict[str, str]):
    """Units and what they became, made on demand."""

    def __init__(self, make):  # type: ignore[no-untyped-def]
        super().__init__()
        self._make = make

    def __missing__(self, unit: str) -> str:
        text: str = unit if unit.isascii() else self._make(unit)
        if len(unit) <= LONGEST_CACHED and len(self) < MOST_CACHED:
            self[unit] = text
        return text
