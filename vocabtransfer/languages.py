"""Languages by whatever people call them: English names, their own names, ISO 639 codes, BCP 47 tags with a script."""

import difflib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import langcodes
from langcodes.data_dicts import LANGUAGE_ALPHA3, MACROLANGUAGES, NORMALIZED_MACROLANGUAGES
from langcodes.tag_parser import LanguageTagError
from language_data.names import load_trie, normalize_name  # type: ignore[import-untyped]
from language_data.util import data_filename  # type: ignore[import-untyped]

from vocabtransfer.errors import UsageError
from vocabtransfer.public import public

# What follows a language's name in that language without changing it: "татар теле", "русский язык", "English language".
_WORD_FOR_LANGUAGE = re.compile(
    r"\s+(language|теле|тілі|тили|тыла|язык|мова|език|јазик|jezik|dili|tili|taal|sprache|språk|kieli|lingua|langue"
    r"|lengua|idioma)$|(語|语|어|말)$"
)
# "In the Tatar way": how Turkic languages name languages in everyday use, as in татарча, қазақша, türkçe, özbekcha.
_TURKIC_ADVERB = re.compile(r"(ча|че|чә|чо|чө|ша|ше|са|се|ça|çe|ca|ce|cha|sha|şa|şe)$")
_TURKIC_LANGUAGE = ("", " теле", " тілі", " тили", " тел")

#: Members in the table that have a code of two letters because everybody counts them as languages of their own.
_SEPARATE = frozenset({"id", "in"})
#: "no" has always meant Bokmål, and most Malay and Twi resources carry the code of the individual language.
_MAIN_MEMBERS = frozenset({("nb", "no"), ("nob", "no"), ("zlm", "ms"), ("twi", "ak")})

_NOT_LANGUAGES = frozenset({"und", "mul", "mis", "zxx", "art"})


@dataclass(frozen=True)
class Language:
    """One language in one script.

    >>> find_language("татарча")
    Language(name='Tatar', code='tt', alpha3='tat', script='Cyrl', endonym='татар', tag='tt')
    >>> find_language("tt-Latn").tag
    'tt-Latn'
    """

    name: str  # English: "Tatar"
    code: str  # the shortest ISO 639 code: "tt", or of three letters where there is none of two; for file names
    alpha3: str  # ISO 639-3: "tat"
    script: str  # ISO 15924: "Cyrl"; the one asked for, else the one the language is mostly written in
    endonym: str  # in the language itself: "татар"
    tag: str  # BCP 47, with the script only where it is not the usual one: "tt", "tt-Latn"
    region: str = field(default="", repr=False, compare=False)  # ISO 3166, only where it was asked for: "BR"


@public
def find_language(text: str) -> Language:
    """Return the language that a name, an ISO 639 code or a BCP 47 tag stands for.

    Names count in English and in any language, the language's own first of all, upper or lower case, with or without
    the word for "language"; a script may follow (``"Tatar (Latin)"``, ``"sr-Latn"``). Regions only help to choose the
    script (``"zh-TW"``). Raises `UsageError` with suggestions where there is no such language.
    """
    words = " ".join(unicodedata.normalize("NFC", text).split())
    if not words or "\0" in words:  # which would end a key in the name tables
        raise UsageError("no language given: name one, such as Tatar, tt, tat or tt-Cyrl.")
    found = _by_tag(words) or _by_name(normalize_name(words))
    if found is None or not _is_language(found):
        raise UsageError(_unknown(words))
    return _language(found)


def is_language_code(text: str) -> bool:
    """Tell whether a text is the ISO 639 code of a language that has one of two letters; a script or region may follow.

    >>> [text for text in ("en", "tat", "pt_BR", "zh-Hans", "house", "xx", "en route") if is_language_code(text)]
    ['en', 'tat', 'pt_BR', 'zh-Hans']
    """
    found = re.fullmatch(r"([a-z]{2,3})([-_][A-Za-z]{2,4}|[-_]\d{3})*", text)
    return found is not None and found[1] in _codes()


@cache
def _codes() -> frozenset[str]:
    return frozenset(LANGUAGE_ALPHA3) | frozenset(LANGUAGE_ALPHA3.values())


def members(language: Language) -> tuple[str, ...]:
    """Return the codes of the individual languages that a macrolanguage stands for, the ones people mean by it first.

    Resources name either: Quechua is also quz and quy, Norwegian nb and nn, Estonian ekk. Empty for any other language.

    >>> members(find_language("no")), members(find_language("tt"))
    (('nb', 'nob', 'nn', 'nno'), ())
    """
    found = [code for code, macro in MACROLANGUAGES.items() if macro == language.code and code not in _SEPARATE]
    found.sort(key=lambda code: (not is_main_member(code, language), code))
    both = ((code, langcodes.Language.get(code).to_alpha3()) for code in found)
    return tuple(dict.fromkeys(spelling for pair in both for spelling in pair))


def is_main_member(code: str, language: Language) -> bool:
    """Tell whether a code is the individual language that people mean by a macrolanguage: Tosk Albanian, Bokmål."""
    return (code, language.code) in _MAIN_MEMBERS or NORMALIZED_MACROLANGUAGES.get(code) == language.code


def _is_language(found: langcodes.Language) -> bool:
    """Leave out private use, families written as ranges, and codes such as "mul" for several languages."""
    return re.fullmatch("[a-z]{2,3}", found.language or "") is not None and found.language not in _NOT_LANGUAGES


def _language(found: langcodes.Language) -> Language:
    # The main member of a macrolanguage is the language people mean: swh and sw are one Swahili, zh is Mandarin (cmn).
    found = langcodes.Language.get(langcodes.standardize_tag(found, macro=True))
    code = str(found.language)
    plain = langcodes.Language.make(language=code)
    usual = plain.maximize().script or "Zzzz"
    script = found.script or found.maximize().script or usual
    written = plain if script == usual else langcodes.Language.make(language=code, script=script)
    return Language(
        name=plain.language_name("en"),
        code=code,
        alpha3=plain.to_alpha3(),
        script=script,
        endonym=written.language_name(written),
        tag=code if script == usual else f"{code}-{script}",
        region=found.territory or "",
    )


def _by_tag(words: str) -> langcodes.Language | None:
    if not words.isascii() or " " in words:
        return None
    try:
        found = langcodes.Language.get(words)
    except (LanguageTagError, LookupError):
        return None
    return found if found.is_valid() else None


def _by_name(name: str) -> langcodes.Language | None:
    for candidate in _candidates(name):
        code = _code(candidate)
        if code is not None:
            return langcodes.Language.get(code)
    # "tatar latin": a script after the name.
    front, _, last = name.rpartition(" ")
    scripts = _names("en", "script").get(last)
    language = _by_name(front) if front and scripts else None
    if language is None:
        return None
    return langcodes.Language.make(language=language.language, script=scripts[0].decode())


def _candidates(name: str) -> Iterator[str]:
    yield name
    short = _WORD_FOR_LANGUAGE.sub("", name)
    if short != name:
        yield short
    root = _TURKIC_ADVERB.sub("", name)
    if root != name:
        for ending in _TURKIC_LANGUAGE:
            yield root + ending


def _code(name: str) -> str | None:
    """Return the tag of a language by its exact name, in English or any language.

    Where the two differ, English wins, unless it names a small language and the other a large one (with a code of two
    letters): Malti is Maltese first, although English has a small Malti of its own.
    """
    found = [values[0].decode() for spoken in ("en", "und") if (values := _names(spoken, "language").get(name))]
    found = [tag for tag in found if ".." not in tag]  # "private use" names a range of codes
    return min(found, key=lambda tag: len(tag.split("-")[0])) if found else None


@cache
def _names(spoken: str, category: str):  # type: ignore[no-untyped-def]  # a marisa_trie.BytesTrie
    return load_trie(data_filename(f"trie/{spoken}/name_to_{category}.marisa"))


def _unknown(words: str) -> str:
    """Write the error message, with the names most like what was asked for."""
    name = normalize_name(words)
    known = _names("en", "language").keys() if name.isascii() else _names("und", "language").keys()
    near = [other for other in known if abs(len(other) - len(name)) <= 3]
    suggestions: dict[str, str] = {}
    for match in difflib.get_close_matches(name, sorted(near), n=8, cutoff=0.7):
        found = _by_name(match)
        if found is not None and _is_language(found):
            language = _language(found)
            suggestions.setdefault(language.code, f"{language.name} ({language.tag})")
    # Languages with a code of two letters are the ones most often meant.
    likely = sorted(suggestions, key=lambda code: len(code) > 2)[:3]
    hint = f"did you mean {' or '.join(suggestions[code] for code in likely)}?" if likely else "see ISO 639 for codes."
    return f"no language is known as {words!r}; give a name, an ISO 639 code or a tag such as tt-Cyrl: {hint}"
