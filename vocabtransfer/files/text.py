"""Text wherever it comes from: one type that can be read again and again, as lines or as documents."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeGuard, cast

from vocabtransfer.errors import UsageError
from vocabtransfer.files.records import open_records, text_column
from vocabtransfer.files.text_files import read_lines
from vocabtransfer.public import public, settle_fields

DOCUMENT_CHARACTERS = 1 << 14


@dataclass(frozen=True)
class Text:
    """Text in files or in memory. Every iteration reads it afresh, line by line, without empty lines.

    Attributes:
        files: the files and folders it is read from, in order; empty for text in memory.
        field: the field, named or counted from 0, that holds the text in files of records; None finds it.
        source: gives the lines of text in memory.
    """

    files: tuple[Path, ...] = ()
    field: str | None = None
    source: Callable[[], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        settle_fields(self)

    def __iter__(self) -> Iterator[str]:
        # A NUL in a line means that it is no text; single ones are left out.
        return (line for line in self._lines() if line.strip() and "\0" not in line)

    def __call__(self) -> Iterator[str]:
        """Return the lines from the beginning."""
        return iter(self)

    def __bool__(self) -> bool:
        return bool(self.files) or self.source is not None

    def __str__(self) -> str:
        return ", ".join(map(str, self.files)) or "text in memory"

    def parts(self) -> tuple["Text", ...]:
        """Return the text of each file by itself."""
        return tuple(Text((file,), self.field) for file in self.files) if self.files else (self,)

    def names(self) -> list[str]:
        """Return the names of the files, without their folders."""
        return [file.name for file in self.files]

    def documents(self) -> Iterator[str]:
        """Yield documents: runs of lines without an empty line between them, joined by line feeds.

        In files of records each record is a document of its own. A document ends early, at the end of a line, once it
        has 16,384 characters. Nothing but one document is held in memory.
        """
        for part in self.parts():
            lines: list[str] = []
            characters = 0
            for line in part._lines():
                if line.strip():
                    lines.append(line)
                    characters += len(line) + 1
                if lines and (characters > DOCUMENT_CHARACTERS or not line.strip()):
                    yield "\n".join(lines)
                    lines, characters = [], 0
            if lines:
                yield "\n".join(lines)

    def all_lines(self) -> Iterator[str]:
        """Yield the lines of plain files as they stand there, empty ones included; of records, the lines of their text."""
        for part in self.parts():
            plain = (
                part.files and open_records(part.files[0], named=() if self.field is None else (self.field,)) is None
            )
            yield from part._lines() if plain else part

    def _lines(self) -> Iterator[str]:
        """Yield all lines, an empty one behind each record."""
        if self.source is not None:
            yield from _checked(self.source())
        for file in self.files:
            records = open_records(file, named=() if self.field is None else (self.field,))
            if records is None:
                yield from (line for _, line in read_lines(file))
                continue
            column = text_column(records, self.field)
            if column is None:
                continue
            for row in records.rows():
                if column < len(row):
                    yield from row[column].replace("\r\n", "\n").split("\n")
                    yield ""


#: What `read_text` takes: a path, several, or a `Text`.
TextFiles = str | PathLike[str] | Text | Iterable[str | PathLike[str]]
#: What `as_text` takes: text in memory, too.
TextLike = TextFiles | Callable[[], Iterable[str]]


@public
def read_text(paths: TextFiles, *, field: str | None = None) -> Text:
    """Open text files, one or many, as a `Text` that can be read again and again.

    Plain UTF-8 text, JSONL, CSV, TSV, Parquet, Arrow and folders saved by `datasets`; text files may be compressed with
    gzip, bzip2, xz or Zstandard. ``field`` names (or counts from 0) the field of records that holds the text; left
    out, it is the one with a usual name (text, content, sentence, ...) or the only one that holds text.

    Nothing is read yet. Iterating raises `VocabTransferError` for files that are missing, damaged, binary, or not UTF-8
    (with the line), and `UsageError` where the field is not clear.
    """
    if isinstance(paths, Text):
        return paths if field is None else Text(paths.files, field, paths.source)
    if isinstance(paths, str | PathLike):
        paths = (paths,)
    found = tuple(paths)
    for path in found:
        if not isinstance(path, str | PathLike):
            raise UsageError(
                f"text is read from paths, not from {type(path).__name__}: for lines in memory, pass a list."
            )
    return Text(tuple(Path(path) for path in found), field)


def is_paths(value: object) -> TypeGuard[TextFiles]:
    """Say whether a value can only mean files: a path, several paths, or the name of something that is there."""
    if isinstance(value, str):
        return len(value) < 4096 and "\n" not in value and "\0" not in value and Path(value).exists()
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(path, PathLike) for path in value)
    return isinstance(value, PathLike | Text)


def _checked(lines: object) -> Iterator[str]:
    """Yield lines in memory; what is no line is said before anything is made of it."""
    if not isinstance(lines, Iterable):
        raise UsageError(f"text in memory is lines, not {type(lines).__name__}.")
    for line in lines:
        if not isinstance(line, str):
            raise UsageError(f"text in memory is lines of text, and one is {type(line).__name__}.")
        yield line


def as_text(text: TextLike) -> Text:
    """Return any text as a `Text`: a path or paths (`Path`), lines in memory, or a function that gives lines.

    A single string is the path of a file, a list of strings is lines. An iterator is read into a list, so that it can
    be read again.
    """
    if isinstance(text, str | PathLike | Text):
        return read_text(text)
    if callable(text):
        return Text(source=text)
    if not isinstance(text, Iterable):
        raise UsageError(f"text is a path, lines or a Text, not {type(text).__name__}.")
    kept = list(text) if isinstance(text, Iterator) else text
    if isinstance(kept, list | tuple) and kept and all(isinstance(path, PathLike) for path in kept):
        return read_text(kept)
    return Text(source=lambda: cast(Iterable[str], kept))
