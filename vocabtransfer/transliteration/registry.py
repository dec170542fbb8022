"""The list of romanizers, and which one a language gets."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language, find_language
from vocabtransfer.public import public
from vocabtransfer.transliteration.base import Digits, Transliterator, check_digits
from vocabtransfer.transliteration.tables import TABLE_SCRIPTS, TableTransliterator
from vocabtransfer.transliteration.uroman import UromanTransliterator

Maker = Callable[[Language, Digits], Transliterator]


def _any_language(language: Language) -> bool:
    return True


@dataclass(frozen=True)
class Romanizer:
    """A registered romanizer: ``covers`` tells whether it knows a language in its script, ``make`` makes it."""

    name: str
    make: Maker
    covers: Callable[[Language], bool]


#: By name. Where no name is given, a language gets the last one that covers it: special ones come after general ones.
TRANSLITERATORS: dict[str, Romanizer] = {}


def romanizer(name: str, covers: Callable[[Language], bool] = _any_language) -> Callable[[Maker], Maker]:
    """Register a function from a language and a digits policy to a `Transliterator` as the romanizer ``name``.

    A checkpoint keeps the name of its romanizer: one that is not registered when the checkpoint is opened again is an
    error that says so. ``covers`` says which languages (with their script) it is for; by default any.
    """

    def register(make: Maker) -> Maker:
        TRANSLITERATORS[name] = Romanizer(name, make, covers)
        return make

    return register


@public
def find_transliterator(
    language: str | Language, name: str | None = None, *, digits: Digits = "fold"
) -> Transliterator:
    """Return the romanizer for a language.

    Args:
        language: name, ISO 639 code, BCP 47 tag or endonym; a tag's script counts ("tt-Arab").
        name: "uroman" (any language), "table" (Tatar, Kazakh, Amharic, Tigrinya) or one registered with `romanizer`;
            None for the most special one that covers the language in its script.
        digits: "fold" writes digits of other scripts 0-9, "keep" leaves them.

    Raises:
        UsageError: there is no such language, romanizer or digits policy, or the romanizer does not cover the language.

    >>> find_transliterator("tatar").name, find_transliterator("russian").name
    ('table', 'uroman')
    """
    known = language if isinstance(language, Language) else find_language(language)
    return _chosen(known, name).make(known, check_digits(digits))


def _chosen(language: Language, name: str | None) -> Romanizer:
    if name is None:
        return next(known for known in reversed(TRANSLITERATORS.values()) if known.covers(language))
    if name not in TRANSLITERATORS:
        near = difflib.get_close_matches(name, TRANSLITERATORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(TRANSLITERATORS)}."
        raise UsageError(f"No romanizer is called {name!r}: {hint}")
    if not TRANSLITERATORS[name].covers(language):
        raise UsageError(f"The romanizer {name} does not know {language.name} ({language.tag}): use uroman.")
    return TRANSLITERATORS[name]


def _has_table(language: Language) -> bool:
    return TABLE_SCRIPTS.get(language.alpha3) == language.script


@romanizer("uroman")
def _uroman(language: Language, digits: Digits) -> Transliterator:
    return UromanTransliterator(language.alpha3, digits)


@romanizer("table", covers=_has_table)
def _table(language: Language, digits: Digits) -> Transliterator:
    return TableTransliterator(language.alpha3, digits)
