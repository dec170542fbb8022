"""The fast way through rules that look no further than the edges of a word: longest match from left to right."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vocabtransfer.transliteration.base import Piece


@dataclass(frozen=True)
class Rule:
    """What a string becomes, and where in a word that holds (None: anywhere; ``after``: one of these characters)."""

    text: str
    at_start: bool | None = None
    at_end: bool | None = None
    after: str = ""


def keep_unless_zero_width(character: str) -> str:
    """Return a character nobody has a rule for; nothing for a combining mark or a joiner, which have no width."""
    return "" if unicodedata.category(character) in ("Mn", "Cf") else character


class Rules:
    """Rules of a writing system without inherent vowels or reordering, applied to one unit of text at a time.

    ``rules`` maps strings to alternatives, of which the first that fits its place counts; a string none of whose
    alternatives fits is read by its shorter parts. Upper case of several letters becomes title case in front of a lower
    case letter (ШАПКА, Шапка: SHAPKA, Shapka) and, with ``lone_capitals``, in a capital that stands alone. A space at
    the edge of a rule's text is left out where a space or the start of the unit is beside it.
    ``fallback`` says what a character without a rule in its place becomes.
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[Rule]],
        *,
        fallback: Callable[[str], str] = keep_unless_zero_width,
        lone_capitals: bool = False,
    ):
        self._rules = {key: tuple(alternatives) for key, alternatives in rules.items()}
        self._fallback = fallback
        self._lone_capitals = lone_capitals
        self._longer: dict[str, tuple[str, ...]] = {}
        for key in sorted((key for key in rules if len(key) > 1), key=lambda key: (-len(key), key)):
            self._longer[key[0]] = (*self._longer.get(key[0], ()), key)
        self._longest = max(map(len, self._rules), default=1)
        self._texts = Table(lambda character: self.context_free(character) or "")
        self._dependent = Table(lambda character: character if self.context_free(character) is None else "")

    def context_free(self, character: str) -> str | None:
        """Return what a character always becomes, None if that depends on its neighbours."""
        if character in self._longer:
            return None
        alternatives = self._rules.get(character)
        if alternatives is None:
            return self._fallback(character)
        text = alternatives[0].text
        if alternatives[0] != Rule(text) or (len(text) > 1 and text.isupper()) or text != text.strip(" "):
            return None
        return text

    def romanize(self, unit: str) -> str:
        """Return a unit romanized."""
        if not unit.translate(self._dependent):
            return unit.translate(self._texts)
        return "".join([piece[2] for piece in self.pieces(unit)])

    def pieces(self, unit: str) -> list[Piece]:
        """Return the stretches of a unit and what each becomes."""
        found: list[Piece] = []
        start = 0
        while start < len(unit):
            character = unit[start]
            if not self._dependent[ord(character)]:
                end, text = start + 1, self._texts[ord(character)]
            else:
                end, text = next(self._matches(unit, start), (start + 1, self._fallback(character)))
            found.append((start, end, text))
            start = end
        return found

    def _matches(self, unit: str, start: int) -> Iterator[tuple[int, str]]:
        """Yield the rules that fit at a place, longest first."""
        character = unit[start]
        for key in (*self._longer.get(character, ()), character):
            if not unit.startswith(key, start):
                continue
            end = start + len(key)
            for rule in self._rules.get(key, ()):
                if rule.at_start is not None and rule.at_start == self._alpha_before(unit, start):
                    continue
                if rule.at_end is not None and rule.at_end == self._alpha_after(unit, end):
                    continue
                if rule.after and (start == 0 or unit[start - 1] not in rule.after):
                    continue
                yield end, _spaced(unit, start, end, self._cased(unit, start, end, rule.text))
                break

    def _cased(self, unit: str, start: int, end: int, text: str) -> str:
        if end - start > 1 or not text.isupper():
            return text
        following = unit[end : end + 1]
        if following.islower():
            return text.capitalize()
        if self._lone_capitals and not following.isalpha() and not unit[max(0, start - 1) : start].isupper():
            return text.capitalize()
        return text

    def _alpha_before(self, unit: str, start: int) -> bool:
        """Tell whether a place follows a letter, or something that is written with one."""
        if start == 0:
            return False
        if unit[start - 1].isalpha():
            return True
        keys = (unit[first:start] for first in range(max(0, start - self._longest), start))
        return any(rule.text[-1:].isalpha() for key in keys for rule in self._rules.get(key, ()))

    def _alpha_after(self, unit: str, end: int) -> bool:
        """Tell whether a letter follows, or something that will be written with one."""
        if end == len(unit):
            return False
        if unit[end].isalpha():
            return True
        keys = [unit[end], *(key for key in self._longer.get(unit[end], ()) if unit.startswith(key, end))]
        rules = (rule for key in keys for rule in self._rules.get(key, ()) if rule.at_start is not True)
        return any(letter.isalpha() for rule in rules for letter in rule.text)


def _spaced(unit: str, start: int, end: int, text: str) -> str:
    """Merge a space at the edge of a rule's text with what is beside it."""
    if text.startswith(" ") and unit[max(0, start - 1) : start] in ("", " "):
        text = text[1:]
    if text.endswith(" ") and unit[end : end + 1] == " ":
        text = text[:-1]
    return text


class Table(dict[int, str]):
    """A table for `str.translate` that is filled on demand; ``make`` gives the text of a character."""

    def __init__(self, make: Callable[[str], str]):
        super().__init__()
        self._make = make

    def __missing__(self, code: int) -> str:
        self[code] = text = self._make(chr(code))
        return text
