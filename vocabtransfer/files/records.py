"""Files of records: JSONL, JSON lists, CSV, quoted TSV, Parquet, Arrow and `datasets` folders as rows of strings.

Text and sentence pairs are read from all of them. What a file is shows in its first bytes or lines, for CSV in its
name. A field of a record that is itself an object counts by its path: ``translation.en``.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.columnar import is_columnar, read_columnar
from vocabtransfer.files.text_files import COMPRESSION_SUFFIXES, open_bytes, read_lines, read_sound_lines
from vocabtransfer.languages import is_language_code

SNIFFED_RECORDS = 200
_SNIFFED_JSON = 5
_MAX_JSON_BYTES = 1 << 28
_MAX_FIELD = 1 << 24
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json")
_DELIMITERS = ",;\t|"
#: What people call the field that holds the text, likeliest first.
TEXT_FIELDS = (
    "text",
    "content",
    "sentence",
    "document",
    "body",
    "raw_content",
    "page_content",
    "messages",
    "conversations",
)
#: Names that only stand in a first line that names columns.
HEADER_NAMES = frozenset(
    {*TEXT_FIELDS, "id", "url", "source", "target", "src", "tgt", "trg", "translation", "original"}
)

Lines = Callable[[Path], Iterator[tuple[int, str | None]]]


@dataclass(frozen=True)
class Records:
    """A file of records. ``names`` are its fields, empty where columns are only counted; rows start anew each time."""

    path: Path
    kind: str
    names: tuple[str, ...]
    rows: Callable[[], Iterator[list[str]]]

    def head(self) -> list[list[str]]:
        """Return the first rows, of the usual number of fields."""
        rows = list(islice(self.rows(), SNIFFED_RECORDS))
        width = self.width(rows)
        return [row for row in rows if len(row) == width]

    @staticmethod
    def width(rows: Sequence[Sequence[str]]) -> int:
        """Return the usual number of fields, so that a stray tab in one line does not make all others wrong."""
        return Counter(map(len, rows)).most_common(1)[0][0] if rows else 0

    def place(self, column: int | str, width: int) -> int:
        """Return the place of a field that was named or counted; `UsageError` where there is none."""
        name = str(column)
        if name in self.names:
            return self.names.index(name)
        folded = [own.casefold() for own in self.names]
        if folded.count(name.casefold()) == 1:
            return folded.index(name.casefold())
        if name.isascii() and name.isdecimal():
            if int(name) < width:
                return int(name)
            raise VocabTransferError(f"{self.path} has {width} columns, so there is no column {int(name)} (from 0).")
        there = (
            f"the fields {', '.join(self.names)}" if self.names else f"{width} columns without names, counted from 0"
        )
        raise UsageError(f"{self.path} has no field {name!r}: it has {there}.")


def open_records(
    path: Path, *, skipped: Counter[str] | None = None, named: Iterable[int | str] = (), known: Iterable[str] = ()
) -> Records | None:
    """Return the records of a file, None for a file of plain lines.

    ``named`` are fields asked for, ``known`` more names that make a first line a header. With ``skipped``, lines that
    are not UTF-8 or not JSON are counted there and left out; else they raise `VocabTransferError` with their number.
    """
    lines: Lines = read_lines if skipped is None else lambda file: read_sound_lines(file, skipped)
    # Looking at the first lines counts nothing: they are read once more.
    sniffed: Lines = read_lines if skipped is None else lambda file: read_sound_lines(file, Counter())
    asked = [str(name) for name in named]
    if is_columnar(path):
        names, rows = read_columnar(path)
        return Records(path, "columns", names, lambda: (list(map(_cell, row)) for row in rows()))
    suffix = bare_suffix(path)
    if suffix == ".json" and _starts_with(path, b"["):
        return _json_records(path, asked, lambda: iter(_json_list(path)), _json_list(path))
    if suffix in _JSON_SUFFIXES or _looks_like_jsonl(path, sniffed):
        first = _json_lines(path, sniffed, None if skipped is None else Counter())
        return _json_records(path, asked, lambda: _json_lines(path, lines, skipped), first)
    header = {name.casefold() for name in (*asked, *known)} | HEADER_NAMES
    if suffix == ".csv":
        return _delimited(path, lines, sniffed, _delimiter(path, sniffed), quoted=True, header=header, kind="csv")
    if suffix in (".tsv", ".tab") or _is_tabbed(path, sniffed):
        return _delimited(path, lines, sniffed, "\t", quoted=_is_quoted(path, sniffed), header=header, kind="tsv")
    return None


def text_column(records: Records, field: str | None) -> int | None:
    """Return which field holds text: the one named, one with a usual name, or the only one that holds any.

    None stands for a table without a row. Raises `UsageError`, naming the fields, where it is not clear.
    """
    head = records.head()
    width = len(records.names) or Records.width(head)
    if field is not None:
        return records.place(field, width)
    if not head:
        return None
    if width == 1:
        return 0
    folded = [name.casefold() for name in records.names]
    for name in TEXT_FIELDS:
        if name in folded:
            return folded.index(name)
    columns = [c for c in range(width) if sum(any(map(str.isalpha, row[c])) for row in head) > len(head) / 2]
    spaced = [c for c in columns if sum(" " in row[c].strip() for row in head) > len(head) / 2]
    if len(spaced) == 1:
        return spaced[0]
    if len(columns) == 1:
        return columns[0]
    there = f"the fields {', '.join(records.names)}" if records.names else f"{width} columns"
    raise UsageError(f"{records.path} has {there}: say which holds the text (`field`), by name or counted from 0.")


def bare_suffix(path: Path) -> str:
    """Return the suffix in lower case, that of a compression taken off: ``.jsonl`` of ``a.jsonl.gz``."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSION_SUFFIXES else path
    return name.suffix.lower()


def _starts_with(path: Path, mark: bytes) -> bool:
    with open_bytes(path) as stream:
        return stream.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(mark)


def _first_lines(path: Path, lines: Lines, count: int) -> list[str]:
    return list(islice((line for _, line in lines(path) if line and line.strip()), count))


# --- JSON -----------------------------------------------------------------------------------------------------------


def _looks_like_jsonl(path: Path, lines: Lines) -> bool:
    first = _first_lines(path, lines, _SNIFFED_JSON)
    return bool(first) and all(line.lstrip().startswith("{") and isinstance(_parsed(line), dict) for line in first)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _json_lines(path: Path, lines: Lines, skipped: Counter[str] | None) -> Iterator[dict[str, Any]]:
    for number, line in lines(path):
        if line is None or not line.strip():
            continue
        record = _parsed(line)
        if isinstance(record, dict):
            yield record
        elif skipped is not None:
            skipped["not a JSON object"] += 1
        else:
            raise VocabTransferError(f"{path}, line {number} is not a JSON object: JSONL has one in each line.")


def _json_list(path: Path) -> list[dict[str, Any]]:
    with open_bytes(path) as stream:
        data = stream.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise VocabTransferError(f"{path} is a JSON list of more than 256 MiB: make it JSONL, an object in each line.")
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise VocabTransferError(f"{path} is not JSON ({problem}).") from None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise VocabTransferError(f"{path} is not a list of JSON objects, so it holds no records.")
    return found


def _json_records(
    path: Path, asked: list[str], read: Callable[[], Iterator[dict[str, Any]]], first: Iterable[dict[str, Any]]
) -> Records:
    names: dict[str, None] = {}
    for record in islice(first, SNIFFED_RECORDS):
        names |= dict.fromkeys(flattened(record))
    # A field that is asked for may come first in a later record.
    names |= dict.fromkeys(name for name in asked if not name.isdecimal()) if not names.keys() & set(asked) else {}
    order = tuple(names)
    if not order:
        raise VocabTransferError(f"{path} holds no record with a field.")

    def rows() -> Iterator[list[str]]:
        found = False
        for record in read():
            flat = flattened(record)
            found = found or any(name in flat for name in asked)
            yield [_cell(flat.get(name)) for name in order]
        if asked and not found and not all(name.isdecimal() for name in asked):
            known = [name for name in order if name not in asked]
            raise UsageError(f"{path} has no field {' or '.join(asked)}: it has the fields {', '.join(known)}.")

    return Records(path, "json", order, rows)


def flattened(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose inner objects are fields of their own: ``{"translation": {"en": ..}}`` has translation.en."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": part for inner, part in value.items()}
        else:
            flat[name] = value
    return flat


def _cell(value: Any) -> str:
    """Return a value as text: what stands in a list is parted by line ends, of a chat's turn only what was said."""
    if isinstance(value, str):
        # Half a surrogate pair may stand in JSON as an escape; it is no text.
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(_cell(part) for part in value)
    if isinstance(value, dict):
        said = next((value[name] for name in ("content", "value", "text") if name in value), None)
        return said if isinstance(said, str) else ""
    return str(value)


# --- columns parted by a sign ---------------------------------------------------------------------------------------


def _is_tabbed(path: Path, lines: Lines) -> bool:
    """Say whether most of the first lines have a tab; a stray one in plain text is no column."""
    first = _first_lines(path, lines, SNIFFED_RECORDS)
    return bool(first) and sum("\t" in line for line in first) > len(first) / 2


def _delimiter(path: Path, lines: Lines) -> str:
    """Return the sign that cuts the first lines into the same number of columns most often."""
    first = _first_lines(path, lines, SNIFFED_RECORDS)

    def fit(sign: str) -> tuple[float, int]:
        try:
            widths = Counter(len(row) for row in csv.reader((line + "\n" for line in first), delimiter=sign))
        except csv.Error:
            return 0.0, 0
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        return (count / widths.total() if width > 1 else 0.0), width

    return max(_DELIMITERS, key=lambda sign: (fit(sign)[0], -_DELIMITERS.index(sign)))


def _is_quoted(path: Path, lines: Lines) -> bool:
    """Say whether a tab-separated file was written with quotes around fields, as programs write CSV.

    Then no field holds a bare quote, and some hold doubled ones, or a column has quotes in every row. Sentences that
    only happen to stand in quotes are left as they are.
    """
    rows = [line.split("\t") for line in _first_lines(path, lines, SNIFFED_RECORDS)]
    fields = [field.strip() for row in rows for field in row if '"' in field]
    if not fields:
        return False
    closed = [len(field) > 1 and field[0] == field[-1] == '"' for field in fields]
    inner = [field[1:-1] for field in fields]
    if not all(closed) or any('"' in text.replace('""', "") for text in inner):
        return False
    width = Records.width(rows)
    whole = [row for row in rows if len(row) == width]
    every = len(whole) > 1 and any(all(row[column].startswith('"') for row in whole) for column in range(width))
    return every or any('""' in text for text in inner)


def _delimited(
    path: Path, lines: Lines, sniffed: Lines, sign: str, *, quoted: bool, header: set[str], kind: str
) -> Records:
    def rows(read: Lines = lines) -> Iterator[list[str]]:
        if quoted:
            return _quoted_rows(path, read, sign)
        return (line.split(sign) for _, line in read(path) if line)

    cells, second = ([cell.strip() for cell in row] for row in (*islice(rows(sniffed), 2), *[list[str]()] * 2)[:2])
    folded = [cell.casefold() for cell in cells]
    is_header = bool(cells) and len(set(folded)) == len(folded) and all(map(_may_name, cells))
    is_header = is_header and (any(cell in header for cell in folded) or _names_languages(cells, second))
    return Records(path, kind, tuple(cells) if is_header else (), lambda: islice(rows(), int(is_header), None))


def _names_languages(cells: Sequence[str], second: Sequence[str]) -> bool:
    """Tell whether a first line names two columns by codes of languages (``en,tt``), and the second does not."""
    named = [sum(map(is_language_code, row)) for row in (cells, second)]
    return named[0] >= 2 > named[1] and not any(" " in cell for cell in cells)


def _may_name(cell: str) -> bool:
    return 0 < len(cell) <= 40 and re.search(r"[.!?…;]\s*$", cell) is None and not cell.replace(".", "").isdecimal()


def _quoted_rows(path: Path, lines: Lines, sign: str) -> Iterator[list[str]]:
    number = 0

    def numbered() -> Iterator[str]:
        nonlocal number
        for number, line in lines(path):  # noqa: B007  # the number is told when the reader fails
            if line is not None:
                yield line.replace("\r", " ") + "\n"

    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        started = 1
        reader = csv.reader(numbered(), delimiter=sign)
        for row in reader:
            if row:
                yield [cell.removesuffix("\n") for cell in row]
            started = number + 1
    except csv.Error as problem:
        raise VocabTransferError(
            f"{path}, line {started} cannot be read: {problem}; is a quote never closed?"
        ) from None
    finally:
        csv.field_size_limit(limit)
