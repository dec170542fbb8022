"""Translated strings in JSON: MediaWiki, Scratch, OpenStreetMap presets, CLDR names, Quran translations."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vocabtransfer.corpora import locales
from vocabtransfer.corpora.package_source import Package, RawPair, Registry, Source
from vocabtransfer.errors import VocabTransferError

CLDR_VERSION = "48.2.0"
SCRATCH_VERSION = "6.1.116"
OSM_VERSION = "6.19.2"
QURAN_VERSION = "3.1.2"

_WIKI_EMPHASIS = re.compile(r"'{2,5}")
_WIKI_EXTERNAL = re.compile(r"\[(?:https?:|//)?\S+ ([^\]]*)\]")
_WIKI_LINK = re.compile(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; `VocabTransferError` naming the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise VocabTransferError(f"{path} is not valid JSON ({problem}): delete it and try again.") from None


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, string) for every string in a tree of objects.

    >>> list(flatten({"a": {"b": "x"}, "c": "y", "d": ["z"]}))
    [('/a/b', 'x'), ('/c', 'y')]
    """
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}/{key}")
        elif isinstance(value, str):
            yield f"{prefix}/{key}", value


def strip_wiki_markup(text: str) -> str:
    """Keep what a reader sees of wiki text.

    >>> strip_wiki_markup("'''See''' [[Help:Top|the help]] or [https://example.org this page]")
    'See the help or this page'
    """
    return _WIKI_EXTERNAL.sub(r"\1", _WIKI_LINK.sub(r"\1", _WIKI_EMPHASIS.sub("", text)))


def _matched(part: str, english: dict[str, str], target: dict[str, str]) -> Iterator[RawPair]:
    for key, text in target.items():
        if key in english:
            yield part, english[key], text


def _same_files(folder: Path, locale: str) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Yield the flattened contents of ``en.json`` and its neighbour in the locale, folder by folder."""
    for english in sorted(folder.rglob("en.json")):
        target = english.with_name(f"{locale}.json")
        if target.exists():
            yield dict(flatten(read_json(english))), dict(flatten(read_json(target)))


def _read_mediawiki(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    for english, target in _same_files(folders[0], locale):
        for part, message, translation in _matched("mediawiki", english, target):
            left, right = strip_wiki_markup(message).split("\n"), strip_wiki_markup(translation).split("\n")
            if len(left) == len(right):
                yield from ((part, line, other) for line, other in zip(left, right, strict=True))
            else:
                yield part, " ".join(left), " ".join(right)


def _read_scratch(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    for english, target in _same_files(folders[0], locale):
        yield from _matched("scratch", english, target)


def _read_osm(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    def names(code: str) -> dict[str, str]:
        content = read_json(folders[0] / f"package/dist/translations/{code}.json")[code]
        # "terms" are search words in no particular order.
        return {key: text for key, text in flatten(content.get("presets", {})) if "/terms" not in key}

    yield from _matched("osm-tags", names("en"), names(locale))


def _read_cldr(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    def names(code: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in sorted((folders[0] / "package/main" / code).glob("*.json")):
            content = read_json(path)["main"][code]
            # "identity" holds the codes of the file's own language.
            found.update(flatten({key: part for key, part in content.items() if key != "identity"}))
        annotations = folders[1] / "package/annotations" / code / "annotations.json"
        if annotations.exists():
            for symbol, entry in read_json(annotations)["annotations"]["annotations"].items():
                found[f"annotation {symbol}"] = (entry.get("tts") or [""])[0]
        return found

    yield from _matched("cldr", names("en"), names(locale))


def _read_quran(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    def verses(code: str) -> dict[str, str]:
        content = read_json(folders[0] / f"package/dist/quran_{code}.json")
        return {f"{sura['id']}:{verse['id']}": verse["translation"] for sura in content for verse in sura["verses"]}

    yield from _matched("quran", verses("en"), verses(locale))


def _json_of(package: str, registry: Registry, folders: str, locale: str) -> list[Package]:
    return [Package(registry, package, (f"{folders}/en.json", f"{folders}/{locale}.json"))]


def _cldr_packages(locale: str) -> list[Package]:
    names = tuple(f"package/main/{code}/*.json" for code in ("en", locale))
    # A language may have no annotations; English always has.
    annotations = tuple(f"package/annotations/{code}/*.json" for code in ("en", locale))
    return [
        Package("npm", f"cldr-localenames-full@{CLDR_VERSION}", names),
        Package("npm", f"cldr-annotations-full@{CLDR_VERSION}", annotations),
    ]


def _quran_packages(locale: str) -> list[Package]:
    members = tuple(f"package/dist/quran_{code}.json" for code in ("en", locale))
    return [Package("npm", f"quran-json@{QURAN_VERSION}", members)]


SOURCES = (
    Source(
        name="mediawiki",
        description="messages of MediaWiki and its extensions",
        licence="GPL-2.0-or-later",
        locales=locales.MEDIAWIKI,
        packages=partial(_json_of, "mediawiki", "deb", "*/i18n*"),
        read=_read_mediawiki,
    ),
    Source(
        name="scratch",
        size=15_700_000,
        description="strings and web pages of Scratch",
        licence="AGPL-3.0-only",
        locales=locales.SCRATCH,
        packages=partial(_json_of, f"scratch-l10n@{SCRATCH_VERSION}", "npm", "package/*"),
        read=_read_scratch,
        min_words=2,
    ),
    Source(
        name="osm-tags",
        size=9_200_000,
        description="names of OpenStreetMap presets and fields",
        licence="ISC",
        locales=locales.OSM,
        packages=partial(
            _json_of, f"@openstreetmap/id-tagging-schema@{OSM_VERSION}", "npm", "package/dist/translations"
        ),
        read=_read_osm,
    ),
    Source(
        name="cldr",
        size=8_500_000,
        description="names of languages, territories, scripts and symbols",
        licence="Unicode-3.0",
        locales=locales.CLDR,
        packages=_cldr_packages,
        read=_read_cldr,
    ),
    Source(
        name="quran",
        size=23_200_000,
        description="translations of the Quran, verse by verse",
        licence="CC-BY-4.0",
        locales=locales.QURAN,
        packages=_quran_packages,
        read=_read_quran,
        max_ratio=3.5,
    ),
)
