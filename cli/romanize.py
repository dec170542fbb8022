"""`vocabtransfer romanize`: text in any script becomes Latin letters, line by line."""

import gzip
import lzma
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer
import zstandard

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import show_progress, track

from .arguments import FIELD, KINDS, existing
from .output import JSON_OPTION, print_json


def romanize(
    files: list[Path] = typer.Argument(None, help=f"Text: {KINDS} [default: standard input]."),
    field: str | None = FIELD,
    language: str = typer.Option(..., help="The language: name, ISO code, BCP 47 tag or endonym."),
    output: Path | None = typer.Option(
        None, help="File to write; .gz, .xz and .zst compress [default: standard output]."
    ),
    transliterator: str | None = typer.Option(
        None, help="uroman or table [default: the table for Tatar, Kazakh, Amharic, Tigrinya; uroman otherwise]."
    ),
    digits: str = typer.Option("fold", help="Digits of other scripts: fold (into 0-9) or keep."),
    overwrite: bool = typer.Option(False, help="Replace an existing output file."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Romanize text, line by line, as a filter or from files.

    Example: `vocabtransfer romanize tatar.txt --language tatar --output tatar-latin.txt`
    """
    from vocabtransfer.languages import find_language
    from vocabtransfer.transliteration import find_transliterator
    from vocabtransfer.transliteration.base import check_digits

    if as_json and output is None:
        raise UsageError("--json needs --output: without it, the romanized text goes to standard output.")
    if output is not None and output.exists() and not overwrite:
        raise VocabTransferError(f"{output} exists: choose another name or give --overwrite.")
    sources = existing(files or [], "file")
    known = find_language(language)
    engine = find_transliterator(known, transliterator, digits=check_digits(digits))
    counted = _Counted(_lines(sources, field))
    started = time.perf_counter()
    with show_progress(output is not None and not as_json), _opened(output) as stream:
        romanized = engine.romanize(track(counted, "romanizing"))
        # Whoever waits at the other end of a pipe gets each line at once.
        flush = output is None and not sources
        for line in romanized:
            stream.write(line + "\n")
            if flush:
                stream.flush()
    if as_json:
        print_json(
            {
                "output": str(output),
                "language": known.tag,
                "transliterator": engine.name,
                "version": engine.version,
                "digits": engine.digits,
                "lines": counted.lines,
                "characters": counted.characters,
                "changed_lines": counted.beyond_ascii,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )


class _Counted:
    """Lines, counted as they pass."""

    def __init__(self, lines: Iterator[str]):
        self._source = lines
        self.lines = self.characters = self.beyond_ascii = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._source:
            self.lines += 1
            self.characters += len(line)
            self.beyond_ascii += not line.isascii()
            yield line


def _lines(files: tuple[Path, ...], field: str | None) -> Iterator[str]:
    from vocabtransfer.files.text import read_text

    if files:
        yield from read_text(files, field=field).all_lines()
        return
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as problem:
            byte = problem.object[problem.start]
            raise VocabTransferError(
                f"Standard input, line {number} is not UTF-8 (byte 0x{byte:02x}): convert it with iconv."
            ) from None


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Give a stream to write to; a file appears when it is complete."""
    if output is None:
        try:
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:
            # `| head` has read enough. Python would complain about it once more when it closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    staged = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _compressed(staged, output.suffix) as stream:
            yield stream
        staged.replace(output)
    finally:
        staged.unlink(missing_ok=True)


def _compressed(path: Path, suffix: str) -> TextIO:
    if suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8", newline="\n")
    if suffix == ".xz":
        return lzma.open(path, "wt", encoding="utf-8", newline="\n")
    if suffix == ".zst":
        return zstandard.open(path, "wt", encoding="utf-8", newline="\n")  # type: ignore[no-any-return]
    return path.open("w", encoding="utf-8", newline="\n")
