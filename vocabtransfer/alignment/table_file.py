"""Reading a word table from its file, block by block, so that what is packed inside cannot take the memory.

A megabyte of gzip may unfold to a gigabyte. Words are numbered as they come and counts go into arrays, pairs that stand
there twice end the reading early, and a table has at most `MOST_BYTES` of text.
"""

import json
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.text_files import open_bytes

FORMAT = "vocabtransfer word table 1"
#: The largest table that ships unfolds to 8 MB.
MOST_BYTES = 1 << 29
_BLOCK, _LONGEST_LINE = 1 << 22, 1 << 20


@dataclass
class _Column:
    """Words numbered in order of appearance, and the number in each line, -1 for the empty word."""

    index: dict[str, int] = field(default_factory=lambda: {"": -1})
    ids: "array[int]" = field(default_factory=lambda: array("i"))

    def add(self, words: list[str]) -> None:
        for word in words:
            if word not in self.index:
                self.index[word] = len(self.index) - 1
        self.ids.extend(map(self.index.__getitem__, words))

    def words(self) -> list[str]:
        return list(self.index)[1:]


@dataclass(frozen=True)
class TableFile:
    """What stands in a file: the words of both sides as they come, links (source, target, count) and totals."""

    metadata: dict[str, Any]
    source_words: list[str]
    target_words: list[str]
    links: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]
    source_totals: NDArray[np.float64]
    target_totals: NDArray[np.float64]


def read_table(path: Path) -> TableFile:
    """Read the file of a word table; see `WordTable.load` for what it raises."""
    source, target, counts = _Column(), _Column(), array("d")
    size = 0
    checked = 1
    with open_bytes(path) as stream:
        metadata = _header(path, stream)
        while text := _block(path, stream, len(counts) + 2):
            size += len(text)
            if size > MOST_BYTES:
                raise VocabTransferError(
                    f"{path} unfolds to more than {MOST_BYTES >> 20} MiB, more than a table of words has: make it smaller "
                    "(align prune)."
                )
            sources, targets, found = _columns(path, text, len(counts) + 2)
            source.add(sources)
            target.add(targets)
            counts.extend(found)
            # What repeats itself is noticed while it is small: at every doubling.
            if len(counts) >= 2 * checked:
                _check_repeats(path, source, target)
                checked = len(counts)
    _check_repeats(path, source, target)
    return _assembled(path, metadata, source, target, np.frombuffer(counts, np.float64))


def _header(path: Path, stream: BinaryIO) -> dict[str, Any]:
    line = stream.readline(_LONGEST_LINE).removeprefix(b"\xef\xbb\xbf")
    try:
        metadata = json.loads(line[2:].decode()) if line.startswith(b"# ") else None
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or metadata.pop("format", None) != FORMAT:
        wanted = json.dumps({"format": FORMAT})
        raise VocabTransferError(f"{path}, line 1 is not the header of a word table, which starts as # {wanted}.")
    return metadata


def _block(path: Path, stream: BinaryIO, line: int) -> str:
    """Return the next lines, of about 4 MiB; ``line`` is the number of the first."""
    data = stream.read(_BLOCK)
    rest = b"" if not data or data.endswith(b"\n") else stream.readline(_LONGEST_LINE)
    if len(rest) == _LONGEST_LINE or (len(data) == _BLOCK and b"\n" not in data):
        number = line + data.count(b"\n")
        raise VocabTransferError(f"{path}, line {number} is longer than 1 MiB: this is not a word table.")
    data += rest
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        number = line + data.count(b"\n", 0, problem.start)
        raise VocabTransferError(f"{path}, line {number} is not UTF-8: this is not a word table.") from None


def _columns(path: Path, text: str, first: int) -> tuple[list[str], list[str], list[float]]:
    """Return the three columns; everything is checked in bulk, and only a bad block is searched line by line."""
    lines = text.removesuffix("\n").split("\n") if text.strip("\n") else []
    fields = "\t".join(lines).split("\t") if lines else []
    try:
        if text.count("\t") != 2 * len(lines) or len(fields) != 3 * len(lines):
            raise ValueError
        counts = list(map(float, fields[2::3]))
        values = np.array(counts)
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError
    except ValueError:
        _refuse_line(path, lines, first)
    return fields[0::3], fields[1::3], counts


def _refuse_line(path: Path, lines: list[str], first: int) -> None:
    for number, line in enumerate(lines, first):
        fields = line.split("\t")
        if len(fields) != 3:
            raise VocabTransferError(
                f"{path}, line {number} has {len(fields)} columns; source, target, count belong there."
            )
        try:
            count = float(fields[2])
        except ValueError:
            count = float("nan")
        if not (np.isfinite(count) and count > 0):
            raise VocabTransferError(f"{path}, line {number}: the count {fields[2]!r} is not a positive number.")
    raise AssertionError(f"{path}: no line is at fault")


def _check_repeats(path: Path, source: _Column, target: _Column) -> None:
    ids = [np.array(column.ids, np.int64) for column in (source, target)]
    keys = ids[0] * (len(target.index) + 1) + ids[1]
    order = np.argsort(keys, kind="stable")
    again = order[1:][keys[order[1:]] == keys[order[:-1]]]
    if len(again):
        number = int(again.min())
        first = int(np.argmax(keys == keys[number]))
        raise VocabTransferError(f"{path}, line {number + 2} repeats the word pair of line {first + 2}.")


def _assembled(
    path: Path, metadata: dict[str, Any], source: _Column, target: _Column, counts: NDArray[np.float64]
) -> TableFile:
    source_ids, target_ids = np.array(source.ids, np.int32), np.array(target.ids, np.int32)
    named = (source_ids >= 0) | (target_ids >= 0)
    if not named.all():
        raise VocabTransferError(f"{path}, line {int(np.argmin(named)) + 2} names no word.")
    is_link = (source_ids >= 0) & (target_ids >= 0)
    links = source_ids[is_link], target_ids[is_link], counts[is_link]
    totals = []
    for column, ids, ends in ((source, source_ids, links[0]), (target, target_ids, links[1])):
        words = column.words()
        own = ~is_link & (ids >= 0)
        total = np.zeros(len(words))
        total[ids[own]] = counts[own]
        if not own.any():
            total = np.bincount(ends, links[2], minlength=len(words)).astype(np.float64)
        elif not total.all():
            word = words[int(np.argmin(total))]
            raise VocabTransferError(
                f"{path}: there is no line with how often {word!r} occurs, but other words have one."
            )
        totals.append(total)
    return TableFile(metadata, source.words(), target.words(), links, totals[0], totals[1])
