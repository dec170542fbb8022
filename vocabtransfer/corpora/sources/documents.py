"""Translated documentation, aligned by the identifiers or the block structure of its pages."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vocabtransfer.corpora import locales
from vocabtransfer.corpora.cleaning import normalise, split_sentences
from vocabtransfer.corpora.package_source import Package, RawPair, Source, reader_library
from vocabtransfer.errors import VocabTransferError

OFFICE_HELP = "usr/share/libreoffice/help"
HANDBOOK = "usr/share/doc/debian-handbook/html"
INSTALL_GUIDE = "usr/share/doc/installation-guide-amd64"
GNOME_HELP = "usr/share/help"
HTML_BLOCKS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "li", "td", "th", "title"))
MALLARD_BLOCKS = frozenset(("p", "title", "desc", "cmd", "input"))

Block = tuple[str, str]
"""Tag and text of a block of a page."""


def parse_page(path: Path) -> Any:
    """Return the root element of an HTML page or, by its suffix ``.page``, of a Mallard page.

    Entities are not resolved and nothing is loaded. Raises `VocabTransferError` for a page that holds no element.
    """
    etree = reader_library("lxml.etree")
    content = path.read_bytes()
    if path.suffix == ".page":
        root = etree.fromstring(content, etree.XMLParser(recover=True, resolve_entities=False, no_network=True))
    else:
        root = etree.fromstring(content or b" ", etree.HTMLParser(encoding="utf-8", no_network=True))
    if root is None:
        raise VocabTransferError(f"{path} is not a page of documentation: delete it and try again.")
    return root


def blocks(root: Any, tags: frozenset[str]) -> list[Block]:
    """Return the innermost blocks of a page in order: elements with one of the tags and none of them inside."""

    def tag_of(element: Any) -> str:
        # Comments and processing instructions have functions for tags.
        if not isinstance(element.tag, str):
            return ""
        tag: str = element.tag.rpartition("}")[2]
        return "p" if tag == "div" and "para" in (element.get("class") or "").split() else tag

    found = []
    for element in root.iter():
        tag = tag_of(element)
        if tag in tags and not any(tag_of(inner) in tags for inner in element.iterdescendants()):
            found.append((tag, normalise(visible_text(element))))
    return found


def visible_text(element: Any) -> str:
    """Return the text of an element as one reader sees it.

    LibreOffice writes variants for systems and programs side by side, in a span of class ``switchinline`` or
    ``switch``; the last of them, the default, is kept.
    """
    classes = (element.get("class") or "").split()
    children = [child for child in element if isinstance(child.tag, str)]
    if children and ("switchinline" in classes or "switch" in classes):
        return visible_text(children[-1])
    text = element.text or ""
    for child in element:
        text += (visible_text(child) if isinstance(child.tag, str) else "") + (child.tail or "")
    return text


def paragraphs(root: Any) -> dict[str, str]:
    """Return the texts of paragraphs and headings that carry an identifier, by that identifier."""
    found: dict[str, str] = {}
    for element in root.iter("p", "h1", "h2", "h3", "h4"):
        identifier = element.get("id")
        if identifier:
            found.setdefault(identifier, normalise(visible_text(element)))
    return found


def _by_structure(part: str, tags: frozenset[str], pages: Iterator[tuple[Path, Path]]) -> Iterator[RawPair]:
    """Pair the blocks of pages whose two versions have the same sequence of tags; other pages are passed over."""
    for english, target in pages:
        left, right = blocks(parse_page(english), tags), blocks(parse_page(target), tags)
        if [tag for tag, _ in left] == [tag for tag, _ in right]:
            for (_, text), (_, other) in zip(left, right, strict=True):
                yield from ((part, *pair) for pair in split_sentences(text, other))


def _same_names(english: Path, target: Path, pattern: str) -> Iterator[tuple[Path, Path]]:
    for page in sorted(english.rglob(pattern)):
        other = target / page.relative_to(english)
        if other.exists():
            yield page, other


def _read_tree(
    part: str, root: str, english: str, pattern: str, tags: frozenset[str], folders: Sequence[Path], locale: str
) -> Iterator[RawPair]:
    base = folders[0] / root
    yield from _by_structure(part, tags, _same_names(base / english, base / locale, pattern))


def _read_office_help(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    english = folders[0] / OFFICE_HELP / "en-US"
    (target,) = (path for path in (folders[1] / OFFICE_HELP).iterdir() if path.is_dir())
    for page, other in _same_names(english, target, "*.html"):
        left, right = paragraphs(parse_page(page)), paragraphs(parse_page(other))
        for identifier, text in left.items():
            if identifier in right:
                yield from (("libreoffice-help", *pair) for pair in split_sentences(text, right[identifier]))


def _read_faq(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    translated = {path.name: path for path in folders[1].rglob("*.html")}
    pages = (
        (page, translated[other])
        for page in sorted(folders[0].rglob("*.en.html"))
        if (other := page.name.replace(".en.html", f".{locale}.html")) in translated
    )
    yield from _by_structure("debian-faq", HTML_BLOCKS, pages)


def _tree_packages(package: str, root: str, english: str, pattern: str, locale: str) -> list[Package]:
    return [Package("deb", package, tuple(f"{root}/{code}/{pattern}" for code in (english, locale)))]


def _office_help_packages(locale: str) -> list[Package]:
    names = ("libreoffice-help-en-us", f"libreoffice-help-{locale}")
    return [Package("deb", name, (f"{OFFICE_HELP}/*.html",)) for name in names]


def _faq_packages(locale: str) -> list[Package]:
    return [Package("deb", name, ("*.html",)) for name in ("debian-faq", f"debian-faq-{locale}")]


def _tree_source(
    name: str, description: str, licence: str, spellings: str, package: str, root: str, english: str, pattern: str
) -> Source:
    tags = MALLARD_BLOCKS if pattern == "*.page" else HTML_BLOCKS
    read: Callable[[Sequence[Path], str], Iterator[RawPair]] = partial(_read_tree, name, root, english, pattern, tags)
    return Source(
        name=name,
        description=description,
        licence=licence,
        locales=spellings,
        packages=partial(_tree_packages, package, root, english, pattern),
        read=read,
        min_words=2,
        max_ratio=2.5,
    )


SOURCES = (
    Source(
        name="libreoffice-help",
        description="user help of LibreOffice, paragraph by paragraph",
        licence="MPL-2.0",
        locales=locales.LIBREOFFICE_HELP,
        packages=_office_help_packages,
        read=_read_office_help,
        min_words=2,
        max_ratio=2.5,
    ),
    _tree_source(
        "gnome-help",
        "user help of the GNOME desktop",
        "CC-BY-SA-3.0",
        locales.GNOME_HELP,
        "gnome-user-docs",
        GNOME_HELP,
        "C",
        "*.page",
    ),
    _tree_source(
        "debian-handbook",
        "the Debian Administrator's Handbook",
        "GPL-2.0-or-later or CC-BY-SA-3.0",
        locales.DEBIAN_HANDBOOK,
        "debian-handbook",
        HANDBOOK,
        "en-US",
        "*.html",
    ),
    _tree_source(
        "install-guide",
        "the Debian installation guide",
        "GPL-2.0-only",
        locales.INSTALL_GUIDE,
        "installation-guide-amd64",
        INSTALL_GUIDE,
        "en",
        "*.html",
    ),
    Source(
        name="debian-faq",
        description="the Debian FAQ",
        licence="GPL-2.0-or-later",
        locales=locales.DEBIAN_FAQ,
        packages=_faq_packages,
        read=_read_faq,
        min_words=2,
        max_ratio=2.5,
    ),
)
