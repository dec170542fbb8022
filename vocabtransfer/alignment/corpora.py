"""Parallel corpora as streams of sentence pairs: tab-separated files, Moses file pairs and TMX, plain or compressed.

What a file is shows in its name or its first lines. Pairs that cannot be used are skipped and counted by reason; a file
that is clearly not what it should be (unequal line counts, swapped sides, a target that is really English) is an error.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from vocabtransfer.alignment.sides import SideCheck
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import COMPRESSION_SUFFIXES, open_bytes, read_lines, read_sound_lines, read_text

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

__all__ = ["CorpusStatistics", "ParallelCorpus", "read_parallel", "read_text"]

_SNIFFED_LINES = 200
_CHECKED_PAIRS = 2000
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# In TMX these hold the markup of the original format, not text; <hi> and <sub> hold text.
_TMX_CODES = frozenset({"bpt", "ept", "ph", "it", "ut"})

_Lines = Callable[[Path], Iterator[tuple[int, str | None]]]


@dataclass
class CorpusStatistics:
    """What reading a corpus met: pairs handed out, and pairs skipped by reason."""

    pairs: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """Return the figures as a phrase, such as ``"5,626 pairs, skipped 3 (2 with an empty side, 1 with a NUL)"``."""
        text = f"{self.pairs:,} pairs"
        if self.skipped:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.skipped.items()))
            text += f", skipped {self.skipped.total():,} ({reasons})"
        return text


class ParallelCorpus:
    """Sentence pairs of one or more files; every iteration reads the files afresh.

    ``statistics`` describes the latest iteration and is complete when that iteration has ended.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        columns: tuple[int, int] | None = None,
        source: "Language | None" = None,
        target: "Language | None" = None,
        skip_damaged: bool = False,
    ) -> None:
        if columns is not None and (min(columns) < 0 or columns[0] == columns[1]):
            raise UsageError(f"columns {columns} must be two different numbers counted from 0.")
        self.statistics = CorpusStatistics()
        self._columns = columns
        self._source = source
        self._target = target
        self._skip_damaged = skip_damaged
        self._parts = _group_files([Path(path) for path in paths], _reader(skip_damaged, Counter()))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        statistics = self.statistics = CorpusStatistics()
        check = SideCheck(self._source, self._target)
        names = ", ".join(str(path) for part in self._parts for path in part)
        pairs = self._usable(statistics, check)
        # The first verdict falls before a pair is handed out, so that hardly any work is done on a wrong corpus.
        first = list(islice(pairs, _CHECKED_PAIRS))
        check.judge(names)
        for pair in chain(first, pairs):
            statistics.pairs += 1
            yield pair
        check.judge(names)
        if not statistics.pairs:
            raise VocabTransferError(f"{names}: there is no usable sentence pair ({statistics.summary()}).")

    def _usable(self, statistics: CorpusStatistics, check: SideCheck) -> Iterator[tuple[str, str]]:
        for part in self._parts:
            for source, target in self._read(part, statistics):
                source, target = source.strip(), target.strip()
                if not source or not target:
                    statistics.skipped["with an empty side"] += 1
                elif "\0" in source or "\0" in target:
                    statistics.skipped["with a NUL"] += 1
                elif not check.accepts(source, target):
                    statistics.skipped["with a target in another script"] += 1
                else:
                    yield source, target

    def _read(self, part: tuple[Path, ...], statistics: CorpusStatistics) -> Iterator[tuple[str, str]]:
        if _is_tmx(part[0]):
            return _read_tmx(part[0], self._source, self._target, statistics)
        lines = _reader(self._skip_damaged, statistics.skipped)
        if len(part) == 2:
            return _read_moses(*part, lines)
        separator = _separator(part[0], _reader(self._skip_damaged, Counter()))
        return _read_columns(part[0], separator, self._columns, statistics, lines)


def read_parallel(
    paths: Sequence[str | Path],
    *,
    columns: tuple[int, int] | None = None,
    source: "Language | None" = None,
    target: "Language | None" = None,
    skip_damaged: bool = False,
) -> ParallelCorpus:
    """Open a parallel corpus: (source, target) sentence pairs, streamed, stripped, never empty.

    ``paths`` mixes freely tab-separated files, TMX files and Moses pairs (two files in a row, one sentence a line), each
    plain, gzip, xz or Zstandard. ``columns`` are the two columns of tab-separated files, counted from 0; left out, they
    are the only two, or the only two that are not labels or numbers. The languages choose the sides of a TMX file and
    allow the check that the target is in its own language. With ``skip_damaged``, single lines that are not UTF-8 or
    longer than 16 MiB are counted and skipped, with their partners.

    Raises `UsageError` for an odd number of Moses files; while iterating `VocabTransferError` for missing, damaged,
    binary or wrongly encoded files, unequal line counts, unclear columns, swapped sides, and for a corpus without a pair.
    """
    return ParallelCorpus(paths, columns=columns, source=source, target=target, skip_damaged=skip_damaged)


def _group_files(paths: list[Path], read: _Lines) -> list[tuple[Path, ...]]:
    """Return one tuple a corpus part: (file,) for tab-separated and TMX files, (source, target) for Moses pairs."""
    if not paths:
        raise UsageError("a parallel corpus needs at least one file.")
    parts: list[tuple[Path, ...]] = []
    waiting: Path | None = None
    for path in paths:
        if _is_tmx(path) or _suffix(path) in (".tsv", ".tab") or _separator(path, read) is not None:
            parts.append((path,))
        elif waiting is None:
            waiting = path
        else:
            parts.append((waiting, path))
            waiting = None
    if waiting is not None:
        raise UsageError(f"{waiting} has one column and no partner: name a tab-separated file, TMX or two Moses files.")
    return parts


def _suffix(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSION_SUFFIXES else path
    return name.suffix.lower()


def _is_tmx(path: Path) -> bool:
    return _suffix(path) == ".tmx"


def _reader(skip_damaged: bool, skipped: Counter[str]) -> _Lines:
    return partial(read_sound_lines, skipped=skipped) if skip_damaged else read_lines


def _separator(path: Path, read: _Lines) -> str | None:
    """Return what parts the columns in the first lines, a tab or fast_align's ``|||``; None for one column."""
    lines = [line for _, line in islice(read(path), _SNIFFED_LINES) if line]
    for separator in ("\t", " ||| "):
        # A stray line without a separator is a matter for the statistics; a stray tab in plain text is no column.
        if lines and sum(separator in line for line in lines) > len(lines) / 2:
            return separator
    return None


def _read_columns(
    path: Path, separator: str | None, columns: tuple[int, int] | None, statistics: CorpusStatistics, read: _Lines
) -> Iterator[tuple[str, str]]:
    if separator is None:
        if not any((line or "").strip() for _, line in read(path)):
            raise VocabTransferError(f"{path} is empty: each line needs a source and a target.")
        raise VocabTransferError(f"{path} has no tab-separated columns: each line needs a source and a target.")
    rows = (line.split(separator) for _, line in read(path) if line)
    head = list(islice(rows, _SNIFFED_LINES))
    # The usual number of columns, so that a stray tab in one line does not make all others wrong.
    width = Counter(map(len, head)).most_common(1)[0][0]
    first, second = columns or _find_columns(path, [row for row in head if len(row) == width])
    if max(first, second) >= width:
        raise VocabTransferError(f"{path} has {width} columns, so there is no column {max(first, second)} (from 0).")
    for fields in chain(head, rows):
        if len(fields) != width:
            statistics.skipped[f"without exactly {width} columns"] += 1
        else:
            yield fields[first], fields[second]


def _find_columns(path: Path, rows: list[list[str]]) -> tuple[int, int]:
    """Return the two columns that hold sentences: labels repeat all the time, identifiers and scores are numbers."""
    width = len(rows[0])
    columns = list(range(width))
    if width > 2:
        most_labels = 1 + len(rows) // 10
        values = [[row[column] for row in rows] for column in columns]
        columns = [c for c in columns if len(set(values[c])) > most_labels and not all(map(_is_number, values[c]))]
    if len(columns) != 2:
        raise UsageError(
            f"{path} has {width} columns: say which two hold source and target, as columns counted from 0."
        )
    return columns[0], columns[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_moses(source: Path, target: Path, read: _Lines) -> Iterator[tuple[str, str]]:
    counts = [0, 0]
    for left, right in zip_longest(read(source), read(target)):
        counts[0] += left is not None
        counts[1] += right is not None
        if left is not None and right is not None and left[1] is not None and right[1] is not None:
            yield left[1], right[1]
    if counts[0] != counts[1]:
        raise VocabTransferError(
            f"{source} has {counts[0]} lines and {target} has {counts[1]}: "
            "the two files of a Moses pair need one sentence a line, in the same order."
        )


def _read_tmx(
    path: Path, source: "Language | None", target: "Language | None", statistics: CorpusStatistics
) -> Iterator[tuple[str, str]]:
    wanted = [{language.code, language.alpha3} if language else None for language in (source, target)]
    default: str | None = None
    with open_bytes(path) as stream:
        try:
            for event, element in defusedxml.ElementTree.iterparse(stream, events=("start", "end")):
                if event == "start" and element.tag in ("body", "header"):
                    parent = element
                    default = _primary(element.get("srclang", default or ""))
                elif event == "end" and element.tag == "tu":
                    pair = _choose_sides(_variants(element), wanted, default)
                    parent.clear()  # a TMX file may be larger than memory
                    if pair is None:
                        statistics.skipped["without both languages"] += 1
                    else:
                        yield pair
        except (ParseError, DefusedXmlException) as problem:
            raise VocabTransferError(f"{path} is not a TMX file that can be read safely: {problem}.") from None


def _primary(tag: str) -> str:
    return tag.replace("_", "-").split("-")[0].lower()


def _variants(unit: Element) -> dict[str, str]:
    variants: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        segment = variant.find("seg")
        if segment is not None:
            tag = variant.get(_XML_LANG) or variant.get("lang") or ""
            variants.setdefault(_primary(tag), " ".join("".join(_segment_text(segment)).split()))
    return variants


def _segment_text(element: Element) -> Iterable[str]:
    if element.tag not in _TMX_CODES:
        yield element.text or ""
        for child in element:
            yield from _segment_text(child)
            yield child.tail or ""


def _choose_sides(
    variants: dict[str, str], wanted: Sequence[set[str] | None], default: str | None
) -> tuple[str, str] | None:
    """Return the pair of a translation unit; a language not asked for is the one that is left, the header's first."""
    chosen: list[Any] = [next((tag for tag in variants if names and tag in names), None) for names in wanted]
    for side, names in enumerate(wanted):
        if names is None:
            rest = [tag for tag in variants if tag != chosen[1 - side]]
            if side == 0 and wanted[1] is None and default in rest:
                rest = [default]
            if side == 0 and wanted[1] is None:
                chosen[0] = rest[0] if rest else None
            else:
                chosen[side] = rest[0] if len(rest) == 1 else None
    if chosen[0] is None or chosen[1] is None:
        return None
    return variants[chosen[0]], variants[chosen[1]]
