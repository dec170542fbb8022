"""Regular expressions, in the dialect of the `tokenizers` library, for a character among certain neighbours."""

from collections.abc import Iterable, Mapping, Sequence

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.transliteration.learned import EDGE

# Supplementary private use area: nothing that text is written in.
FIRST_PRIVATE, LAST_PRIVATE = 0xF0000, 0xFFFFD


class Variants:
    """Private characters, one for each way in which a character is romanized in exceptional places."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], str] = {}
        self._of: dict[str, list[str]] = {}

    def add(self, character: str, text: str) -> None:
        """Set a private character aside for ``character`` read as ``text``."""
        if (character, text) in self._codes:
            return
        code = FIRST_PRIVATE + len(self._codes)
        if code > LAST_PRIVATE:
            raise VocabTransferError("The romanization needs more than 65,534 readings: use fewer exceptions.")
        self._codes[character, text] = chr(code)
        self._of.setdefault(character, []).append(chr(code))

    def get(self, character: str, text: str) -> str:
        """Return the private character for a reading."""
        return self._codes[character, text]

    def texts(self) -> dict[str, str]:
        """Return what each private character stands for."""
        return {code: text for (_, text), code in self._codes.items()}

    def all_of(self, characters: Iterable[str]) -> list[str]:
        """Return the characters and all private characters that stand for them."""
        return [code for character in characters for code in (character, *self._of.get(character, ()))]

    def word_class(self) -> str:
        """Return the class of characters that words consist of."""
        own = f"\\x{{{FIRST_PRIVATE:X}}}-\\x{{{LAST_PRIVATE:X}}}"
        return rf"[\p{{L}}\p{{M}}\p{{Cf}}{own}]"


def character_set(characters: Iterable[str]) -> str:
    """Return the bracket expression for some characters."""
    codes = sorted(set(map(ord, characters)))
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    inside = "".join(
        rf"\x{{{first:X}}}" if first == last else rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges
    )
    return f"[{inside}]"


def pattern(character: str, contexts: Sequence[Mapping[int, frozenset[str]]], variants: Variants, word: str) -> str:
    """Return the expression for ``character`` in any of some contexts: by place, the neighbours of which one is there.

    The character comes first, so that the library can search for it as a string, and look-behinds look across it.
    """
    own = rf"\x{{{ord(character):X}}}"
    choices = (
        "".join(_looking(place, context[place], own, variants, word) for place in sorted(context, reverse=True))
        for context in contexts
    )
    return f"{own}(?:{'|'.join(choices)})"


def _looking(place: int, wanted: frozenset[str], own: str, variants: Variants, word: str) -> str:
    """Return a look-around, from behind the character itself, that asks for one of the neighbours at a place."""
    between = word * (abs(place) - 1)
    choices = []
    letters = variants.all_of(sorted(wanted - {EDGE}))
    if letters:
        found = character_set(letters)
        choices.append(f"(?<={found}{between}{own})" if place < 0 else f"(?={between}{found})")
    if EDGE in wanted:
        choices.append(f"(?<!{word}{between}{own})" if place < 0 else f"(?!{between}{word})")
    return choices[0] if len(choices) == 1 else f"(?:{'|'.join(choices)})"
