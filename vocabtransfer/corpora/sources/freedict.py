"""Bilingual dictionaries of the FreeDict project, as word and phrase pairs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vocabtransfer.alignment.dictionary_files import MOST_WORDS, glosses, read_dictd
from vocabtransfer.corpora import locales
from vocabtransfer.corpora.cleaning import count_words
from vocabtransfer.corpora.package_source import Package, RawPair, Source

# German is left out of `locales.FREEDICT_*`: half a million pairs of rare compounds would outweigh all other text.
LEAST_SPACED = 0.01


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
        description="words and short phrases from the FreeDict dictionaries, some of them made of Wiktionary",
        licence="GPL-2.0-or-later (a few dictionaries GPL-3.0-or-later or CC-BY-SA-3.0)",
        locales=f"{locales.FREEDICT_FROM_ENGLISH} {locales.FREEDICT_TO_ENGLISH}",
        packages=_packages,
        read=_read_freedict,
    ),
)
