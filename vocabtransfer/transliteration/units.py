"""Where a text may be cut so that its parts can be romanized one by one, as if they stood together."""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache


@cache
def symbols() -> tuple[str, ...]:
    """Return all punctuation, symbols, and separators of Unicode beyond ASCII."""
    beyond_ascii = map(chr, range(0x80, sys.maxunicode + 1))
    return tuple(character for character in beyond_ascii if unicodedata.category(character)[0] in "PSZ")


def character_class(characters: Iterable[str]) -> str:
    """Return the inside of a regular expression's brackets that stands for these characters, as ranges."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if ranges and code <= ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(
        re.escape(chr(first)) + (f"-{re.escape(chr(last))}" if last > first else "") for first, last in ranges
    )


class Units:
    """Finds the stretches of a text that are romanized as one: words, with whatever their letters may look at.

    What lies between matches stays as it is: ASCII other than letters, and symbols that ``changed`` maps to None.

    Args:
        changed: for a symbol beyond ASCII, what it becomes whatever its neighbours are, None for a symbol that belongs
            to the words beside it.
        joined: strings with ASCII symbols that are part of a word all the same, such as the apostrophe of "'я".
        spaced: characters whose romanization starts or ends in a space, which merges with a space beside it.
        numeric: characters that make numbers together with ASCII digits and points beside them.
        kept: further characters that stay as they are.
    """

    def __init__(
        self,
        changed: Callable[[str], str | None],
        *,
        joined: Sequence[str] = (),
        spaced: Iterable[str] = (),
        numeric: Iterable[str] = (),
        kept: Iterable[str] = (),
    ):
        single = []
        kept = [*kept, *(chr(code) for code in range(0x80) if not chr(code).isalpha())]
        for symbol in symbols():
            becomes = changed(symbol)
            if becomes == symbol:
                kept.append(symbol)
            elif becomes is not None:
                single.append(symbol)
        spaced_class, numeric_class = character_class(spaced), character_class(numeric)
        self._numeric = re.compile(f"[{numeric_class}]") if numeric_class else None
        digits = set("0123456789.")
        self._plain = _pattern(single, kept, joined, spaced_class)
        self._numbers = _pattern(single, [symbol for symbol in kept if symbol not in digits], joined, spaced_class)

    def pattern_for(self, text: str) -> re.Pattern[str]:
        """Return the pattern whose matches in this text are to be romanized, each by itself."""
        return self._numbers if self._numeric is not None and self._numeric.search(text) else self._plain


def _pattern(single: Sequence[str], kept: Sequence[str], joined: Sequence[str], spaced: str) -> re.Pattern[str]:
    boundary = character_class([*single, *kept])
    longest_first = sorted(joined, key=lambda key: (-len(key), key))
    word = f"(?:{'|'.join([*map(re.escape, longest_first), f'[^{boundary}]'])})+" if joined else f"[^{boundary}]+"
    if spaced:
        word = f"(?:[{boundary}](?=[{spaced}]))?{word}(?:(?<=[{spaced}]) )?"
    return re.compile(f"{word}|[{character_class(single)}]" if single else word)
