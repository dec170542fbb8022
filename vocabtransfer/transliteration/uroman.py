"""uroman, the universal romanizer, at the speed of a dictionary."""

from functools import cached_property
from importlib.metadata import version
from typing import ClassVar

from vocabtransfer.transliteration.base import Digits, Piece
from vocabtransfer.transliteration.cached import CachedTransliterator
from vocabtransfer.transliteration.uroman_lattice import lattice_pieces
from vocabtransfer.transliteration.uroman_rules import LATTICE, NUMBER, uroman_rules


class UromanTransliterator(CachedTransliterator):
    """Gives what the uroman package gives for a whole text, romanizing each word once.

    Words of alphabets, syllabaries and Han go through uroman's rules directly; words of scripts with inherent vowels,
    of Thai, kana and Tibetan, and numbers, through its lattice. Differences from the package: private use characters
    are kept; where uroman has two readings of the same characters and takes either, the first rule counts; and
    ``digits="keep"``, which it does not know, leaves digits as they are and reads numerals as words (三: san).

    >>> russian = UromanTransliterator("rus")
    >>> list(russian.romanize(["Юлия съела ящик щуки"]))
    ['Yuliya syela yashchik shchuki']
    """

    name: ClassVar[str] = "uroman"

    def __init__(self, language: str | None = None, digits: Digits = "fold"):
        self._sorted = uroman_rules(language, digits)
        super().__init__(language, digits, self._sorted.units)

    @cached_property
    def version(self) -> str:
        """The release of the uroman package."""
        return version("uroman")

    def _romanize_unit(self, unit: str) -> str:
        if not unit.translate(self._sorted.kinds):
            return self._sorted.rules.romanize(unit)
        return "".join([piece[2] for piece in self._unit_pieces(unit)])

    def _unit_pieces(self, unit: str) -> list[Piece]:
        kinds = unit.translate(self._sorted.kinds)
        if not kinds:
            return self._sorted.rules.pieces(unit)
        if LATTICE in kinds:
            return lattice_pieces(unit, self.language, numbers=NUMBER in kinds)
        return self._with_numbers(unit, self._sorted.rules.pieces(unit))

    def _with_numbers(self, unit: str, pieces: list[Piece]) -> list[Piece]:
        """Read the stretches of a unit that numerals are in with the lattice, which adds them up (三百 is 300)."""
        parts, kinds = self._sorted.number_parts, self._sorted.kinds
        found: list[Piece] = []
        position = 0
        while position < len(pieces):
            end = position
            while end < len(pieces) and parts.issuperset(unit[pieces[end][0] : pieces[end][1]]):
                end += 1
            start_of_stretch = pieces[position][0]
            stretch = unit[start_of_stretch : pieces[end - 1][1]] if end > position else ""
            if stretch.translate(kinds):
                numbers = lattice_pieces(stretch, self.language, numbers=True)
                found += [(start_of_stretch + start, start_of_stretch + stop, text) for start, stop, text in numbers]
                position = end
            else:
                end = max(end, position + 1)
                found += pieces[position:end]
                position = end
        return found
