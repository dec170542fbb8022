"""Dictionaries as people have them: columns and records, dictd, StarDict and FreeDict's TEI, all as pairs of headwords.

A dictionary for people has articles, not pairs: definitions, examples, remarks in brackets. What is taken are the short
translations (`glosses`); the rest stays out.
"""

from __future__ import annotations

import gzip
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ParseError

import regex
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.records import HEADER_NAMES, Records, bare_suffix, open_records
from vocabtransfer.files.text_files import open_bytes, read_lines
from vocabtransfer.languages import is_language_code

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

#: A gloss of more words is an explanation; so is a headword.
MOST_WORDS = 4
_BASE64 = {
    digit: value for value, digit in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}
_NOT_A_GLOSS = ('"', "Note:", "Synonym", "see:", "See", "- ", "→")
_ASIDE = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\"[^\"]*\"|^\s*\d+\.|\s\d+\.\s*$")
_NUMBERED = re.compile(r"\s*\d+\.\s")
_MARKUP = re.compile(r"<[^<>]*>")
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*")
#: The first words of every StarDict description, and the types of an article that are text.
_STARDICT, _TEXT_TYPES = "StarDict's dict ifo file", "mlgxh"
_MOST_ARTICLE = 1 << 24
#: The largest dictionaries have some 50 MB of text; a packed file of a few kilobytes can pretend to have many gigabytes.
_MOST_BYTES = 1 << 28
_DAMAGED = (OSError, EOFError, zlib.error, ValueError, KeyError, struct.error)


def read_dictionary(path: str | Path, languages: tuple[Language, Language] | None = None) -> list[tuple[str, str]]:
    """Read a dictionary as (source, target) pairs.

    What it is shows in its name: ``.index`` or ``.dict.dz`` (dictd, as FreeDict's packages have it), ``.ifo`` (StarDict),
    ``.tei`` (FreeDict), ``.csv``, JSONL and Parquet; anything else has lines of source, tab, target, where further columns
    and lines that begin with # do not count. Fields called ``source`` and ``target``, or after the languages, are taken
    wherever they stand, else the first two. With ``languages`` a file whose name has them the other way round
    (``nld-eng`` for English and Dutch) is turned.

    Raises `VocabTransferError` naming the file, and the line that has no second column.
    """
    path = Path(path)
    entries = [
        (source, target)
        for source, target in (tuple(map(_plain, entry)) for entry in _entries(path, languages))
        if source and target
    ]
    if not entries:
        raise VocabTransferError(f"{path} has no entries: a dictionary has lines of source, tab, target.")
    if languages is not None and _turned(path, languages):
        return [(target, source) for source, target in entries]
    return entries


def _entries(path: Path, languages: tuple[Language, Language] | None) -> Iterator[tuple[str, str]]:
    suffix = bare_suffix(path)
    index = path.with_name(path.name.removesuffix(".dz").removesuffix(".dict") + ".index")
    if suffix == ".index" or (path.name.endswith((".dict", ".dict.dz")) and index.is_file()):
        return _of_articles(read_dictd(path if suffix == ".index" else index))
    ifo = path.with_name(re.sub(r"\.(ifo|idx|dict)(\.gz|\.dz)?$", "", path.name) + ".ifo")
    if suffix == ".ifo" or (suffix in (".idx", ".dict", ".dz") and ifo.is_file()):
        return _of_articles(read_stardict(path if suffix == ".ifo" else ifo))
    if suffix == ".tei":
        return read_tei(path)
    records = open_records(path)
    if records is not None and records.kind != "tsv":
        return _of_records(records, languages)
    return _of_lines(path)


def _of_lines(path: Path) -> Iterator[tuple[str, str]]:
    first = True
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2:
            raise VocabTransferError(f"{path}, line {number} has no tab: a dictionary has source, tab, target.")
        if not (first and {field.casefold() for field in fields[:2]} <= HEADER_NAMES):
            yield fields[0], fields[1]
        first = False


def _of_records(records: Records, languages: tuple[Language, Language] | None) -> Iterator[tuple[str, str]]:
    names = [name.casefold() for name in records.names]
    places = [_place(names, side, languages) for side in (0, 1)]
    if None in places or places[0] == places[1]:
        coded = [place for place, name in enumerate(names) if is_language_code(name) and name != "id"]
        places = [*coded] if len(coded) == 2 else [0, 1]
    first, second = (place or 0 for place in places)
    for number, row in enumerate(records.rows(), start=1):
        if len(row) <= max(first, second):
            raise VocabTransferError(
                f"{records.path}, record {number} has {len(row)} fields: a dictionary has source and target."
            )
        yield row[first], row[second]


def _place(names: Sequence[str], side: int, languages: tuple[Language, Language] | None) -> int | None:
    """Return which field holds a side: the one called after its language, or ``source`` and ``target``."""
    called: tuple[str, ...] = (("source", "src", "headword", "word"), ("target", "tgt", "trg", "translation"))[side]
    if languages is not None:
        one = languages[side]
        called = (one.code, one.alpha3, one.name.casefold(), one.tag.casefold(), *called)
    return next((names.index(name) for name in called if name in names), None)


def _turned(path: Path, languages: tuple[Language, Language]) -> bool:
    """Tell whether a name such as ``freedict-nld-eng.index`` has the languages the other way round."""
    found = re.search(r"(?<![a-z])([a-z]{2,3})[-_]([a-z]{2,3})(?![a-z])", path.name.lower())
    if found is None:
        return False
    codes = [{language.code, language.alpha3} for language in languages]
    return found[1] in codes[1] and found[2] in codes[0]


# --- articles -------------------------------------------------------------------------------------------------------


def _of_articles(articles: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for headword, article in articles:
        if 0 < len(_WORD.findall(headword)) <= MOST_WORDS:
            yield from ((headword, gloss) for gloss in glosses(article))


def glosses(article: str) -> Iterator[str]:
    """Yield the translations in an article: no definitions, examples, notes, cross-references or remarks in brackets.

    The first line is the headword. The dictionaries that WikDict makes of Wiktionary have a line that defines each sense
    behind the one that translates it; their headwords are followed by no number or by numbers in every other line.

    >>> list(glosses("growth /x/ <n>\\n1. groei, wasdom\\n2. toename (plant)\\n   Note: rare"))
    ['groei', 'wasdom', 'toename']
    """
    for line in article.splitlines()[1:]:
        line = _plain(line.replace("~", " ").replace("\u2010", "-"))
        if line and not line.startswith(_NOT_A_GLOSS):
            for gloss in re.split(r"[;,、]", _ASIDE.sub(" ", line)):
                if 0 < len(_WORD.findall(gloss)) <= MOST_WORDS:
                    yield _plain(gloss).rstrip(".")


def without_definitions(article: str) -> str:
    """Return an article of WikDict without the lines that define: of each sense the first line is the translation.

    >>> without_definitions("Bali /x/ <pn>\\nBali\\nisland of Indonesia")
    'Bali /x/ <pn>\\nBali'
    """
    lines = article.splitlines()
    return "\n".join(line for number, line in enumerate(lines) if number < 2 or _NUMBERED.match(line))


# --- dictd ----------------------------------------------------------------------------------------------------------


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

    Raises `VocabTransferError` when the index or the ``.dict.dz`` (or ``.dict``) beside it is damaged.
    """
    try:
        text = _whole(index, (".dict.dz", ".dict"))
        of_wikdict = b"WikDict" in text[:4096]
        for line in _whole(index, (".index",)).decode("utf-8").splitlines():
            headword, offset, length = line.split("\t")[:3]
            begin = dictd_number(offset)
            if not headword.startswith("00"):
                article = text[begin : begin + dictd_number(length)].decode("utf-8")
                yield headword, without_definitions(article) if of_wikdict else article
    except _DAMAGED as problem:
        raise VocabTransferError(f"{index} is not a dictd dictionary ({problem}): get it again.") from None


# --- StarDict -------------------------------------------------------------------------------------------------------


def read_stardict(ifo: Path) -> Iterator[tuple[str, str]]:
    """Yield (headword, article) of a StarDict dictionary, markup taken out, in the order of its index.

    Raises `VocabTransferError` when one of its three files is missing or damaged.
    """
    lines = [line for _, line in read_lines(ifo)]
    if not lines or lines[0].strip() != _STARDICT:
        raise VocabTransferError(f"{ifo} does not begin with {_STARDICT!r}: it is no StarDict dictionary.")
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    wide = facts.get("idxoffsetbits", "32").strip() == "64"
    types = facts.get("sametypesequence", "").strip()
    try:
        index = _whole(ifo, (".idx", ".idx.gz"))
        text = _whole(ifo, (".dict.dz", ".dict"))
        place, numbers = 0, struct.Struct(">QI" if wide else ">II")
        while place < len(index):
            end = index.index(b"\0", place)
            offset, size = numbers.unpack_from(index, end + 1)
            if size > _MOST_ARTICLE or offset + size > len(text):
                raise ValueError("its index leads past the end of its text")
            headword = index[place:end].decode("utf-8")
            # The headword stands in front, as in dictd.
            yield headword, "\n".join([headword, *_fields(text[offset : offset + size], types)])
            place = end + 1 + numbers.size
    except _DAMAGED as problem:
        raise VocabTransferError(f"{ifo} is not a whole StarDict dictionary ({problem}): get it again.") from None


def _whole(beside: Path, suffixes: Sequence[str]) -> bytes:
    """Return one of a dictionary's files, unpacked; `OSError` where none is there, `ValueError` for one too large."""
    for suffix in suffixes:
        path = beside.with_name(beside.stem + suffix)
        if path.exists():
            with path.open("rb") as stream:
                packed = stream.read(2) == b"\x1f\x8b"
            with gzip.open(path) if packed else path.open("rb") as stream:
                data = stream.read(_MOST_BYTES + 1)
            if len(data) > _MOST_BYTES:
                raise ValueError(f"{path.name} has more than {_MOST_BYTES >> 20} MiB")
            return data
    raise OSError(f"there is no {' or '.join(suffixes)} beside it")


def _fields(data: bytes, types: str) -> Iterator[str]:
    """Yield the lines of the text fields of an article; without a sequence of types each field is led by its own."""
    place, number = 0, 0
    while place < len(data):
        if types:
            if number >= len(types):
                return
            kind, last = types[number], number == len(types) - 1
        else:
            kind, last = chr(data[place]), False
            place += 1
        number += 1
        if kind.isupper():
            size = len(data) - place if last else struct.unpack_from(">I", data, place)[0]
            place += size + (0 if last else 4)
            continue
        end = len(data) if last else data.find(b"\0", place)
        end = len(data) if end < 0 else end
        if kind in _TEXT_TYPES:
            yield from _MARKUP.sub("\n", data[place:end].decode("utf-8")).splitlines()
        place = end + 1


# --- TEI ------------------------------------------------------------------------------------------------------------


def read_tei(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (headword, translation) of a dictionary in FreeDict's TEI: ``orth`` of a form, ``quote`` of a ``cit``.

    Raises `VocabTransferError` for a file that is not XML, or that has entities to unfold.
    """
    with open_bytes(path) as stream:
        try:
            for _, element in iterparse(stream, events=("end",)):
                if _tag(element) == "entry":
                    yield from _entry(element)
                    element.clear()
        except (ParseError, DefusedXmlException) as problem:
            raise VocabTransferError(f"{path} is not a TEI dictionary ({problem}).") from None


def _entry(entry: Element) -> Iterator[tuple[str, str]]:
    headwords = [_text(orth) for form in entry if _tag(form) == "form" for orth in form.iter() if _tag(orth) == "orth"]
    quotes = [
        _text(quote)
        for cit in entry.iter()
        if _tag(cit) == "cit" and cit.get("type") in ("trans", "translation")
        for quote in cit
        if _tag(quote) == "quote"
    ]
    for headword in headwords:
        for quote in quotes:
            if max(len(_WORD.findall(text)) for text in (headword, quote)) <= MOST_WORDS:
                yield headword, quote


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _text(element: Element) -> str:
    return _plain("".join(element.itertext()))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
