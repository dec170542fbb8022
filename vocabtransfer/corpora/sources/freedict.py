"""Bilingual dictionaries of the FreeDict project, as word and phrase pairs."""

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from vocabtransfer.corpora import locales
from vocabtransfer.corpora.cleaning import count_words, normalise
from vocabtransfer.corpora.package_source import Package, RawPair, Source
from vocabtransfer.errors import VocabTransferError

# German is left out of `locales.FREEDICT_*`: half a million pairs of rare compounds would outweigh all other text.
MOST_WORDS = 4
LEAST_SPACED = 0.01
_BASE64 = {
    digit: value for value, digit in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}
_NOT_A_GLOSS = ('"', "Note:", "Synonym", "see:", "See", "- ", "→")
_ASIDE = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\"[^\"]*\"|^\s*\d+\.")


def dictd_number(digits: str) -> int:
    """Return the number that dictd writes with the digits of base 64.

    >>> dictd_number("BA"), dictd_number("/")
    (64, 63)
    """
    number = 0
    for digit in digits:
        number = number * 64 + _BASE64[digit]
    return number


def read_dictd(index: Path) -> Iterator[tuple[str, str]]:
    """Yield (headword, article) of a dictd dictionary in the order of its ``.index`` file.

    Raises `VocabTransferError` when the index or the ``.dict.dz`` beside it is damaged.
    """
    try:
        text = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
        for line in index.read_text(encoding="utf-8").splitlines():
            headword, offset, length = line.split("\t")[:3]
            begin = dictd_number(offset)
            if not headword.startswith("00"):
                yield headword, text[begin : begin + dictd_number(length)].decode("utf-8")
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as problem:
        raise VocabTransferError(f"{index} is not a dictd dictionary ({problem}): delete it and try again.") from None


def glosses(article: str) -> Iterator[str]:
    """Yield the translations in an article: no examples, notes, cross-references or remarks in brackets.

    >>> list(glosses("growth /x/ <n>\\n1. groei, wasdom\\n2. toename (plant)\\n   Note: rare"))
    ['groei', 'wasdom', 'toename']
    """
    for line in article.splitlines()[1:]:
        line = normalise(line.replace("~", " ").replace("\u2010", "-"))
        if line and not line.startswith(_NOT_A_GLOSS):
            for gloss in re.split(r"[;,]", _ASIDE.sub(" ", line)):
                if 0 < count_words(gloss) <= MOST_WORDS:
                    yield normalise(gloss).rstrip(".")


def without_lost_spaces(pairs: list[tuple[str, str]], english: set[str]) -> list[tuple[str, str]]:
    """Return (headword, English gloss) pairs without glosses such as "humanbeing".

    Some dictionaries into English have lost the spaces inside their glosses. Where hardly one gloss has a space, only
    glosses that the dictionary from English knows as headwords are kept.
    """
    spaced = sum(" " in gloss for _, gloss in pairs)
    if spaced >= LEAST_SPACED * len(pairs):
        return pairs
    return [(headword, gloss) for headword, gloss in pairs if gloss in english]


def _read_freedict(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    headwords: set[str] = set()
    for index in (path for folder in folders for path in sorted(folder.rglob("*.index"))):
        pairs = [
            (headword, gloss)
            for headword, article in read_dictd(index)
            if count_words(headword) <= MOST_WORDS
            for gloss in glosses(article)
        ]
        if index.name.startswith("freedict-eng-"):
            headwords.update(headword for headword, _ in pairs)
            yield from (("freedict", headword, gloss) for headword, gloss in pairs)
        else:
            yield from (("freedict", gloss, headword) for headword, gloss in without_lost_spaces(pairs, headwords))


def _packages(locale: str) -> list[Package]:
    names = []
    if locale in locales.FREEDICT_FROM_ENGLISH.split():
        names.append(f"eng-{locale}")
    if locale in locales.FREEDICT_TO_ENGLISH.split():
        names.append(f"{locale}-eng")
    return [Package("deb", f"dict-freedict-{name}", ("usr/share/dictd/*",)) for name in names]


SOURCES = (
    Source(
        name="freedict",
        description="words and short phrases from the FreeDict dictionaries",
        licence="GPL-2.0-or-later (a few dictionaries GPL-3.0-or-later or CC-BY-SA-3.0)",
        locales=f"{locales.FREEDICT_FROM_ENGLISH} {locales.FREEDICT_TO_ENGLISH}",
        packages=_packages,
        read=_read_freedict,
    ),
)
