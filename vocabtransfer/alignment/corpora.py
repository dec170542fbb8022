"""Parallel corpora as streams of sentence pairs: files of columns or records, Moses file pairs and TMX.

What a file is shows in its name or its first lines. Pairs that cannot be used are skipped and counted by reason; a file
that is clearly not what it should be (unequal line counts, swapped sides, a target that is really English) is an error.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, zip_longest
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import regex

from vocabtransfer.alignment.sides import SideCheck
from vocabtransfer.alignment.tmx import read_tmx
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.records import Records, bare_suffix, open_records
from vocabtransfer.files.text import read_text
from vocabtransfer.files.text_files import read_lines, read_sound_lines
from vocabtransfer.public import public

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

__all__ = ["Columns", "CorpusStatistics", "ParallelCorpus", "read_parallel", "read_text"]

#: Two columns or fields, source and target, each by its name or counted from 0.
Columns = tuple[int | str, int | str]

#: Files, one or many.
Paths = str | PathLike[str] | Sequence[str | PathLike[str]]

_SNIFFED_LINES = 200
_CHECKED_PAIRS = 2000
_SIDES = (("source", "src"), ("target", "tgt", "trg"))

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
        paths: Paths,
        *,
        columns: Columns | None = None,
        source: "Language | None" = None,
        target: "Language | None" = None,
        skip_damaged: bool = False,
    ) -> None:
        if columns is not None and (columns[0] == columns[1] or any(isinstance(c, int) and c < 0 for c in columns)):
            raise UsageError(f"columns {columns} must be two different numbers counted from 0, or two different names.")
        self.statistics = CorpusStatistics()
        self._columns = columns
        self._source = source
        self._target = target
        self._skip_damaged = skip_damaged
        self._known = {name for language in (source, target) if language for name in _names_of(language)}
        files = list(read_text(paths).files)
        self._parts = _group_files(files, self._open, _reader(skip_damaged, Counter()))

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
            return read_tmx(part[0], self._source, self._target, statistics.skipped)
        lines = _reader(self._skip_damaged, statistics.skipped)
        if len(part) == 2:
            return _read_moses(*part, lines)
        records = self._open(part[0], statistics.skipped) or _barred(part[0], lines)
        return _read_columns(records, self._columns, (self._source, self._target), statistics)

    def _open(self, path: Path, skipped: Counter[str] | None = None) -> Records | None:
        counted = (Counter() if skipped is None else skipped) if self._skip_damaged else None
        return open_records(path, skipped=counted, named=self._columns or (), known=self._known)


@public
def read_parallel(
    paths: Paths,
    *,
    columns: Columns | None = None,
    source: "Language | None" = None,
    target: "Language | None" = None,
    skip_damaged: bool = False,
) -> ParallelCorpus:
    """Open a parallel corpus: (source, target) sentence pairs, streamed, stripped, never empty.

    ``paths`` mixes freely files of columns (TSV, CSV, ``source ||| target``), of records (JSONL, Parquet, Arrow, folders
    that `datasets` saved), TMX files and Moses pairs (two files in a row, one sentence a line); text files may be
    compressed with gzip, bzip2, xz or Zstandard. ``columns`` are two columns or fields, by name or counted from 0; left
    out, they are those named after the languages, or source and target; else they
    are the only two, or the only two that are not labels or numbers. The languages choose the sides of a TMX file and
    allow the check that the target is in its own language. With ``skip_damaged``, single lines that are not UTF-8 or
    longer than 16 MiB are counted and skipped, with their partners.

    Raises `UsageError` for an odd number of Moses files; while iterating `VocabTransferError` for missing, damaged,
    binary or wrongly encoded files, unequal line counts, unclear columns, swapped sides, and for a corpus without a pair.
    """
    return ParallelCorpus(paths, columns=columns, source=source, target=target, skip_damaged=skip_damaged)


def as_pairs(pairs: Paths | Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, Any]]:
    """Return sentence pairs whatever they were given as: pairs in memory, or the paths of files; see `read_parallel`."""
    if isinstance(pairs, str | PathLike):
        return read_parallel(pairs)
    if isinstance(pairs, list | tuple) and pairs and all(isinstance(path, str | PathLike) for path in pairs):
        return read_parallel(cast(Paths, pairs))
    return cast("Iterable[tuple[Any, Any]]", pairs)


def _group_files(paths: list[Path], records: Callable[[Path], Records | None], read: _Lines) -> list[tuple[Path, ...]]:
    """Return one tuple a corpus part: (file,) for files of pairs, (source, target) for Moses pairs."""
    if not paths:
        raise UsageError("a parallel corpus needs at least one file.")
    parts: list[tuple[Path, ...]] = []
    waiting: Path | None = None
    for path in paths:
        if _is_tmx(path) or records(path) is not None or _is_barred(path, read):
            parts.append((path,))
        elif waiting is None:
            waiting = path
        else:
            parts.append((waiting, path))
            waiting = None
    if waiting is not None:
        comma = sum("," in line for line in _first_lines(waiting, read)) > 0.9 * len(_first_lines(waiting, read)) > 0
        hint = " (if its columns are parted by commas, name it .csv)" if comma else ""
        raise UsageError(
            f"{waiting} has one column and no partner{hint}: name a file with two columns, TMX or two Moses files."
        )
    return parts


def _is_tmx(path: Path) -> bool:
    return bare_suffix(path) == ".tmx"


def _reader(skip_damaged: bool, skipped: Counter[str]) -> _Lines:
    return partial(read_sound_lines, skipped=skipped) if skip_damaged else read_lines


def _first_lines(path: Path, read: _Lines) -> list[str]:
    return [line for _, line in islice(read(path), _SNIFFED_LINES) if line]


def _is_barred(path: Path, read: _Lines) -> bool:
    """Say whether the first lines have fast_align's ``|||``, with spaces around it or without."""
    lines = _first_lines(path, read)
    return bool(lines) and sum("|||" in line for line in lines) > len(lines) / 2


def _barred(path: Path, read: _Lines) -> Records:
    return Records(path, "bars", (), lambda: (line.split("|||") for _, line in read(path) if line))


def _read_columns(
    records: Records,
    columns: Columns | None,
    languages: "tuple[Language | None, Language | None]",
    statistics: CorpusStatistics,
) -> Iterator[tuple[str, str]]:
    path = records.path
    rows = records.rows()
    head = list(islice(rows, _SNIFFED_LINES))
    width = records.width(head)
    if width < 2 and not any(any(map(str.strip, row)) for row in head):
        raise VocabTransferError(f"{path} is empty: each line needs a source and a target.")
    if width < 2:
        kind = "tab-separated columns" if records.kind == "tsv" else "second column"
        raise VocabTransferError(f"{path} has no {kind}: each line needs a source and a target.")
    if columns is not None:
        first, second = (records.place(column, width) for column in columns)
    else:
        first, second = _named_columns(records.names, languages) or _find_columns(
            records, [row for row in head if len(row) == width]
        )
    if first == second:
        raise UsageError(f"{path}: columns {columns} are one and the same: name two.")
    if max(first, second) >= width:
        raise VocabTransferError(
            f"{path}: most lines have {width} fields, but its first line names {len(records.names)}: give them equally many."
        )
    for fields in chain(head, rows):
        if len(fields) != width:
            statistics.skipped[f"without exactly {width} columns"] += 1
        else:
            yield fields[first].replace("\n", " "), fields[second].replace("\n", " ")


def _names_of(language: "Language") -> set[str]:
    """Return what a column in a language may be called, in lower case."""
    return {name.casefold() for name in (language.code, language.alpha3, language.name, language.endonym, language.tag)}


def _named_columns(
    names: Sequence[str], languages: "tuple[Language | None, Language | None]"
) -> tuple[int, int] | None:
    """Return the columns named after the languages (``nl``, ``translation.en``, ``sentence_en``), or source and target."""
    parted = [{name.casefold(), *regex.split(r"[\W_]+", name.casefold())} for name in names]
    sides: list[set[int]] = []
    for language, usual in zip(languages, _SIDES, strict=True):
        found = {c for c, parts in enumerate(parted) if language is not None and parts & _names_of(language)}
        sides.append(found or {c for c, name in enumerate(names) if name.casefold() in usual})
    if any(len(side) != 1 for side in sides) or sides[0] == sides[1]:
        return None
    return sides[0].pop(), sides[1].pop()


def _find_columns(records: Records, rows: list[list[str]]) -> tuple[int, int]:
    """Return the two columns that hold sentences: labels repeat all the time, identifiers and scores are numbers."""
    width = len(rows[0])
    columns = list(range(width))
    if width > 2:
        most_labels = 1 + len(rows) // 10
        values = [[row[column] for row in rows] for column in columns]
        columns = [c for c in columns if len(set(values[c])) > most_labels and not all(map(_is_number, values[c]))]
    if len(columns) != 2:
        there = f"the fields {', '.join(records.names)}" if records.names else f"{width} columns"
        raise UsageError(
            f"{records.path} has {there}: say which two hold source and target, as columns named or counted from 0."
        )
    return columns[0], columns[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text
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
