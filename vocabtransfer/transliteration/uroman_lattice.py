"""The uroman package behind a few repairs: the same answer in every process, bounded memory, numbers on request.

uroman: Hermjakob, May and Knight, "Out-of-the-box Universal Romanization Tool uroman", ACL 2018. This universal
romanizer is loaded once per process (seconds) and holds about 43,000 rules.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

from uroman import uroman as package

from vocabtransfer.progress import step
from vocabtransfer.transliteration.base import Piece


@cache
def loaded_uroman() -> Any:
    """Return the package's romanizer, loaded on the first call."""
    with step("loading uroman"):
        uroman = package.Uroman()
    # Every string looked up would stay in these tables for ever, which grow by megabytes with every page of text.
    uroman.dict_bool = _Defaults(bool, uroman.dict_bool)
    uroman.dict_str = _Defaults(str, uroman.dict_str)
    uroman.rom_rules = _Defaults(list, uroman.rom_rules)
    uroman.num_props = _Defaults(dict, uroman.num_props)
    uroman.stats = _Forgetful()
    return uroman


class _Defaults(dict[Any, Any]):
    """A dictionary that answers for what it lacks without taking it in."""

    def __init__(self, make: type, content: dict[Any, Any]):
        super().__init__(content)
        self._make = make

    def __missing__(self, key: Any) -> Any:
        return self._make()


class _Forgetful(dict[Any, int]):
    def __missing__(self, key: Any) -> int:
        return 0

    def __setitem__(self, key: Any, value: int) -> None:
        pass


class _Ordered(dict[Any, None]):
    """A set that keeps the order in which things came: uroman's own go by the place of objects in memory."""

    def add(self, item: Any) -> None:
        self.setdefault(item)

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()


class _Lattice(package.Lattice):  # type: ignore[misc]
    """A lattice whose ties are broken by the order of the rules."""

    def __init__(self, text: str, uroman: Any, lcode: str | None):
        super().__init__(text, uroman, lcode)
        self.lattice: defaultdict[Any, _Ordered] = defaultdict(_Ordered)

    def check_for_scripts(self) -> None:
        """Note the scripts in the text (looking for Braille once instead of once per character)."""
        for character in self.s:
            self.contains_script[self.uroman.chr_script_name(character)] = True
        if any(self.char_is_braille(character) for character in self.s):
            self.contains_script["Braille"] = True


def lattice_pieces(text: str, language: str | None, *, numbers: bool) -> list[Piece]:
    """Return the stretches of a text and what uroman makes of each, in order and without gaps.

    Without ``numbers``, numerals are read as letters where they have a reading and stay as they are otherwise.
    """
    lattice = _filled(text, language, numbers)
    if lattice is None:  # uroman 1.3 stumbles over a fraction that breaks off, as in 三分之x
        lattice = _filled(text, language, False)
    pieces: list[Piece] = []
    done = 0
    for edge in lattice.best_rom_edge_path(0, len(text)):
        made = edge.txt
        if edge.type == "Co" or (not numbers and any(character.isdecimal() for character in made)):
            made = text[edge.start : edge.end]
        pieces += _digit_by_digit(text, done, edge.end, made)
        done = edge.end
    if done < len(text):
        pieces.append((done, len(text), ""))
    return pieces


def _digit_by_digit(text: str, start: int, end: int, made: str) -> list[Piece]:
    """Return a piece, as one per character where it is a number written with as many digits as before."""
    numbers = all(character.isdecimal() or character == "." for character in text[start:end])
    if not numbers or len(made) != end - start:
        return [(start, end, made)]
    return [(start + place, start + place + 1, digit) for place, digit in enumerate(made)]


def _filled(text: str, language: str | None, numbers: bool) -> Any:
    uroman = loaded_uroman()
    lattice = _Lattice(text, uroman, language)
    lattice.pick_tibetan_vowel_edge()
    lattice.prep_braille()
    lattice.add_romanization()
    if numbers:
        try:
            lattice.add_numbers(uroman)
        except AttributeError:
            return None
        lattice.add_braille_numbers()
    lattice.add_rom_fall_back_singles()
    return lattice


@cache
def unruled(character: str) -> str:
    """Return what uroman makes of a character for which it has no rule: its parts, nothing for marks, or itself."""
    if unicodedata.category(character) in ("Mn", "Cf"):
        return ""
    uroman = loaded_uroman()
    if 0xAC00 <= ord(character) <= 0xD7A3:
        return str(uroman.unicode_hangul_romanization(character))
    return str(_Lattice(character, uroman, None).decomp_rom(0) or character)
