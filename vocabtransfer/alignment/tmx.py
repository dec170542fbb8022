"""TMX, the exchange format of translation memories, as a stream of sentence pairs.

Any namespace, any encoding that Python knows, and language tags however they are written: `find_language` reads them.
The script and the region of a language that was asked for choose among its variants; a unit that has the language only
in another script is skipped and counted.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import open_bytes
from vocabtransfer.languages import find_language

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

# In TMX these hold the markup of the original format, not text; <hi> and <sub> hold text.
_CODES = frozenset({"bpt", "ept", "ph", "it", "ut"})
_CHUNK = 1 << 14
_MAX_CHARACTERS = 1 << 24
_DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)[\"']")
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Encodings the XML parser reads by itself.
_NATIVE = frozenset({"utf-8", "utf-16", "utf-16-le", "utf-16-be", "iso8859-1", "ascii"})


@dataclass
class _Units:
    """The parser's target: collects the variants of each translation unit, (tag, text), without a tree."""

    units: list[list[tuple[str, str]]] = field(default_factory=list)
    source_tag: str = ""
    has_body: bool = False
    outside: bool = False  # a unit was met outside a body
    giants: int = 0
    _unit: list[tuple[str, str]] | None = None
    _tag: str = ""
    _text: list[str] | None = None
    _size: int = 0
    _coded: int = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """Begin an element."""
        name = _local(name)
        if name == "header":
            self.source_tag = attributes.get("srclang", "")
        elif name == "body":
            self.has_body = True
        elif name == "tu":
            self.outside = self.outside or not self.has_body
            self._unit, self._size = [], 0
        elif name == "tuv":
            self._tag = next((value for key, value in attributes.items() if _local(key) == "lang"), "")
        elif name == "seg":
            self._text, self._coded = [], 0
        elif name in _CODES:
            self._coded += 1

    def data(self, text: str) -> None:
        """Take text; that of codes is none."""
        if self._text is not None and not self._coded:
            self._size += len(text)
            if self._size <= _MAX_CHARACTERS:
                self._text.append(text)

    def end(self, name: str) -> None:
        """End an element."""
        name = _local(name)
        if name in _CODES:
            self._coded -= 1
        elif name == "seg" and self._text is not None:
            if self._unit is not None:
                self._unit.append((self._tag, " ".join("".join(self._text).split())))
            self._text = None
        elif name == "tu" and self._unit is not None:
            if self._size > _MAX_CHARACTERS:
                self.giants += 1
            else:
                self.units.append(self._unit)
            self._unit = None

    def close(self) -> None:
        """End the document."""


def read_tmx(
    path: Path, source: "Language | None", target: "Language | None", skipped: Counter[str]
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a TMX file; units without one are counted in ``skipped`` by reason.

    A language not asked for is the one that is left, the header's source language first. Raises `VocabTransferError`,
    with the line, for files that are no TMX, broken, dangerous (entities) or in an encoding that is not known.
    """
    target_units = _Units()
    with open_bytes(path) as stream:
        chunks, encoding = _chunks(path, stream)
        parser = DefusedXMLParser(target=target_units, encoding=encoding)
        try:
            for chunk in chunks:
                parser.feed(chunk)
                if target_units.outside:
                    raise VocabTransferError(
                        f"{path}, line {_line(parser)}: a <tu> stands outside <body>, so this is no whole TMX file."
                    )
                yield from _pairs(target_units, (source, target), skipped)
            last = _line(parser)
            parser.close()
        except (ParseError, DefusedXmlException, LookupError, ValueError) as problem:
            reason = str(problem) or type(problem).__name__
            place = "" if "line " in reason else f", line {_line(parser)}"
            raise VocabTransferError(f"{path}{place} is not a TMX file that can be read safely: {reason}.") from None
        yield from _pairs(target_units, (source, target), skipped)
        if not target_units.has_body:
            raise VocabTransferError(f"{path}, line {last}: the file ends without a <body>, so it is no TMX.")


def _line(parser: Any) -> int:
    return int((getattr(parser, "parser", None) or parser._parser).CurrentLineNumber)


def _chunks(path: Path, stream: BinaryIO) -> tuple[Iterable[bytes], str | None]:
    """Return the file in chunks, and "utf-8" where they were made that from an encoding the parser does not know."""
    first = stream.read(_CHUNK)
    declared = None if first.startswith(_MARKS) else _DECLARED.match(first)
    rest = iter(lambda: stream.read(_CHUNK), b"")
    if declared is None:
        return _joined(first, rest), None
    name = declared.group(1).decode("ascii", "replace")
    try:
        known = codecs.lookup(name)
        "a".encode(known.name).decode(known.name)  # some codecs are not between bytes and text
    except (LookupError, ValueError, TypeError):
        raise VocabTransferError(f"{path}, line 1 names the encoding {name!r}, which is not known.") from None
    if known.name in _NATIVE:
        return _joined(first, rest), None
    return _recoded(path, _joined(first, rest), known), "utf-8"


def _joined(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _recoded(path: Path, chunks: Iterable[bytes], known: codecs.CodecInfo) -> Iterator[bytes]:
    decoder = known.incrementaldecoder()
    line = 1
    try:
        for chunk in chunks:
            text = decoder.decode(chunk)
            yield text.encode("utf-8", "replace")
            line += text.count("\n")
        decoder.decode(b"", True)
    except UnicodeDecodeError as problem:
        line += problem.object[: problem.start].count(b"\n")
        raise VocabTransferError(
            f"{path}, line {line} is not in {known.name}, the encoding that line 1 names."
        ) from None


def _local(name: str) -> str:
    return name.rpartition("}")[2].rpartition(":")[2].lower()


# --- which variants make the pair -----------------------------------------------------------------------------------


def _pairs(units: _Units, languages: "Sequence[Language | None]", skipped: Counter[str]) -> Iterator[tuple[str, str]]:
    if units.giants:
        skipped["longer than 16 MiB"] += units.giants
        units.giants = 0
    found, units.units = units.units, []
    for unit in found:
        pair = _choose(unit, languages, units.source_tag, skipped)
        if pair is not None:
            yield pair


def _choose(
    unit: list[tuple[str, str]], languages: "Sequence[Language | None]", source_tag: str, skipped: Counter[str]
) -> tuple[str, str] | None:
    chosen: list[str | None] = [None, None]
    taken: set[str] = set()
    for side, language in enumerate(languages):
        if language is None:
            continue
        own = [(tag, text) for tag, text in unit if _code(tag) == _code(language.code)]
        if not own:
            skipped["without both languages"] += 1
            return None
        best = _best(own, language)
        if best is None:
            skipped[f"with a {('source', 'target')[side]} in another script"] += 1
            return None
        chosen[side] = best
        taken.add(_code(language.code))
    left: dict[str, str] = {}
    for tag, text in unit:
        if _code(tag) not in taken:
            left.setdefault(_code(tag), text)
    if languages[0] is None and languages[1] is None and left:
        first = _code(source_tag) if _code(source_tag) in left else next(iter(left))
        chosen[0] = left.pop(first)
    for side in (0, 1):
        if chosen[side] is None and len(left) == 1:
            chosen[side] = left.popitem()[1]
    if chosen[0] is None or chosen[1] is None:
        skipped["without both languages"] += 1
        return None
    return chosen[0], chosen[1]


def _best(variants: list[tuple[str, str]], language: "Language") -> str | None:
    """Return the variant nearest to a language: in its script, of its region, else of none; None in no script of its."""
    ranked: list[tuple[int, str]] = []
    for tag, text in variants:
        found = _language(tag)
        says = re.search("[-_(]", tag) is not None  # a bare code says nothing of the script
        if found is None or (found.script != language.script and says):
            continue
        region = found.region
        rank = 0 if region and region == language.region else 1 if not region else 2
        ranked.append((rank + 3 * (found.script != language.script), text))
    return min(ranked, key=lambda entry: entry[0])[1] if ranked else None


def _code(tag: str) -> str:
    found = _language(tag)
    code = found.code if found is not None else tag.strip().lower()
    return "nb" if code == "no" else code  # Norwegian means Bokmål where nothing else is said


@cache
def _language(tag: str) -> "Language | None":
    """Return the language of a tag: a code of any standard, a name, with an encoding or country behind it, or None."""
    plain = tag.strip().partition(".")[0]
    for form in (plain, re.sub(r"\s*[(,].*", "", plain), re.split("[-_]", plain)[0]):
        try:
            return find_language(form)
        except UsageError:
            continue
    return None
