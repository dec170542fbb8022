"""Which romanizer a language gets."""

from collections.abc import Callable
from functools import partial

from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language, find_language
from vocabtransfer.transliteration.base import Digits, Transliterator, check_digits
from vocabtransfer.transliteration.tables import TABLE_SCRIPTS, TableTransliterator
from vocabtransfer.transliteration.uroman import UromanTransliterator

TRANSLITERATORS: tuple[str, ...] = ("uroman", "table")


def find_transliterator(
    language: str | Language, name: str | None = None, *, digits: Digits = "fold"
) -> Transliterator:
    """Return the romanizer for a language.

    Args:
        language: name, ISO 639 code, BCP 47 tag or endonym; a tag's script counts ("tt-Arab").
        name: "uroman" (any language) or "table" (Tatar, Kazakh, Amharic, Tigrinya); None for the table where there is
            one for the language in its script and uroman elsewhere.
        digits: "fold" writes digits of other scripts 0-9, "keep" leaves them.

    Raises:
        UsageError: there is no such language, romanizer or digits policy, or no table for the language.

    >>> find_transliterator("tatar").name, find_transliterator("russian").name
    ('table', 'uroman')
    """
    known = language if isinstance(language, Language) else find_language(language)
    has_table = TABLE_SCRIPTS.get(known.alpha3) == known.script
    return _maker(name or ("table" if has_table else "uroman"), known)(check_digits(digits))


def _maker(name: str, language: Language) -> Callable[[Digits], Transliterator]:
    if name == "uroman":
        return partial(UromanTransliterator, language.alpha3)
    if name != "table":
        raise UsageError(f"No romanizer is called {name!r}: choose one of {', '.join(TRANSLITERATORS)}.")
    if TABLE_SCRIPTS.get(language.alpha3) != language.script:
        raise UsageError(f"There is no romanization table for {language.name} ({language.tag}): use uroman.")
    return partial(TableTransliterator, language.alpha3)
