"""Lines of text files, plain or compressed, checked on the way: one sentence says which file and line is at fault."""

import bz2
import gzip
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.whole import whole_file

_SNIFFED_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 24
# A text may hold a stray control byte; executables, weights and archives are full of them.
_MAX_CONTROLS = 4
_MAX_CONTROL_SHARE = 0.005
_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_CORRUPT = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile)

# Zstandard packs up to 128 KiB into 4 bytes, and gives everything out at once: small bites bound the memory, to 16 MiB.
_ZSTD_BITE = 1 << 9
_COMPRESSIONS = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst", b"BZh": "bz2"}
COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressing gzip, bzip2, xz and Zstandard as its first bytes tell (not its name).

    Raises `VocabTransferError` when the file cannot be read or turns out damaged, also while the block reads it.
    """
    try:
        with path.open("rb") as raw:
            compression = next((name for magic, name in _COMPRESSIONS.items() if _peek(raw, 6).startswith(magic)), None)
            with _decompress(raw, compression) as stream:
                yield stream
    except FileNotFoundError:
        raise VocabTransferError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise VocabTransferError(f"{path} is a folder: name a file.") from None
    except _CORRUPT as problem:
        detail = str(problem).rstrip(".") or type(problem).__name__
        if "too much memory" in detail:
            raise VocabTransferError(
                f"{path} needs more than 128 MiB to unfold: pack it again without --long."
            ) from None
        raise VocabTransferError(f"{path} is damaged or cut short ({detail}): get it again.") from None
    except OSError as problem:
        # bzip2's reader says what is wrong with the data by an OSError without a number.
        if problem.errno is None:
            raise VocabTransferError(f"{path} is damaged or cut short ({problem}): get it again.") from None
        raise VocabTransferError(f"{path} cannot be read ({problem.strerror or problem}).") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a UTF-8 text file, one line in memory at a time.

    Only ``\\n`` and ``\\r\\n`` end a line; a byte-order mark is dropped. Raises `VocabTransferError` for files that are
    missing, damaged, binary or archives, for UTF-16, for bytes that are not UTF-8 (with the line) and for giant lines.
    """
    for number, line, problem in _lines(path):
        if line is None:
            raise VocabTransferError(f"{path}, line {number} is {problem}.")
        yield number, line


def read_sound_lines(path: Path, skipped: Counter[str]) -> Iterator[tuple[int, str | None]]:
    """Yield what `read_lines` does, but None for a line that is no UTF-8 or a giant, counted in ``skipped``.

    The rest of the file is held to the same rules: a binary file is an error all the same.
    """
    for number, line, problem in _lines(path):
        if line is None:
            skipped["not in UTF-8" if problem.startswith("not") else "longer than 16 MiB"] += 1
        yield number, line


def _lines(path: Path) -> Iterator[tuple[int, str | None, str]]:
    """Yield number and line, or None and what is wrong with the line."""
    with open_bytes(path) as stream:
        _refuse_binary(path, _peek(stream, _SNIFFED_BYTES))
        for number, raw in enumerate(iter(partial(stream.readline, _MAX_LINE_BYTES + 1), b""), 1):
            if len(raw) > _MAX_LINE_BYTES:
                yield number, None, "longer than 16 MiB: this is not text in lines"
                while raw and not raw.endswith(b"\n"):
                    raw = stream.readline(_MAX_LINE_BYTES)
                continue
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                line = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as problem:
                byte = problem.object[problem.start]
                yield number, None, f"not UTF-8 (byte 0x{byte:02x}): convert the file with iconv"
            else:
                yield number, line, ""


class _ZstdReader(io.RawIOBase):
    """Decompresses Zstandard frames one after the other; the library's own reader takes a cut file for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if self._frame.eof:
                packed = self._frame.unused_data or self._raw.read(_ZSTD_BITE)
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            else:
                packed = self._raw.read(_ZSTD_BITE)
            if not packed:
                if self._begun:
                    raise EOFError("the last frame is not complete")
                return 0
            self._begun = True
            self._ready = memoryview(self._frame.decompress(packed))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


@contextmanager
def _decompress(raw: BinaryIO, compression: str | None) -> Iterator[BinaryIO]:
    if compression == "gz":
        with gzip.GzipFile(fileobj=raw) as stream:
            yield cast(BinaryIO, io.BufferedReader(stream, _SNIFFED_BYTES))
    elif compression == "bz2":
        with bz2.BZ2File(raw) as stream:
            yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _SNIFFED_BYTES))
    elif compression == "xz":
        with lzma.LZMAFile(raw) as stream:
            yield cast(BinaryIO, io.BufferedReader(stream, _SNIFFED_BYTES))
    elif compression == "zst":
        yield cast(BinaryIO, io.BufferedReader(_ZstdReader(raw), _SNIFFED_BYTES))
    else:
        yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, raw), _SNIFFED_BYTES))


def _peek(stream: BinaryIO, size: int) -> bytes:
    """Return up to ``size`` first bytes of a fresh buffered stream without consuming them."""
    return cast(io.BufferedReader, stream).peek(size)[:size]


def _refuse_binary(path: Path, head: bytes) -> None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise VocabTransferError(f"{path} is UTF-16: convert it to UTF-8 (iconv -f UTF-16 -t UTF-8).")
    if head.startswith(b"PK\x03\x04"):
        raise VocabTransferError(f"{path} is a zip archive: unpack it and name the text files inside.")
    controls = len(head) - len(head.translate(None, _CONTROL_BYTES))
    if controls > max(_MAX_CONTROLS, _MAX_CONTROL_SHARE * len(head)):
        raise VocabTransferError(f"{path} is a binary file: text in UTF-8 is needed.")


def write_compressed(path: Path, data: bytes) -> None:
    """Write bytes compressed as the suffix tells (.gz, .bz2, .xz, .zst, else plain), whole or not at all.

    The same bytes give the same file: no times or names are stored. Raises `VocabTransferError` when it cannot be
    written; what was there before is then still there.
    """
    compress = {
        ".gz": lambda: gzip.compress(data, mtime=0),
        ".xz": lambda: lzma.compress(data, preset=6),
        ".bz2": lambda: bz2.compress(data),
        ".zst": lambda: zstandard.ZstdCompressor(level=19).compress(data),
    }.get(path.suffix, lambda: data)
    with _staged(path) as stream:
        stream.write(compress())


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines (with their ends) as they come; see `open_lines`."""
    with open_lines(path) as write:
        for line in lines:
            write(line)


@contextmanager
def open_lines(path: Path) -> Iterator[Callable[[str], object]]:
    """Give a function that writes a line (with its end), compressed as the suffix tells; the file appears in the end.

    The same lines give the same file. Raises `VocabTransferError` as `write_compressed` does; when the block raises,
    nothing is left behind.
    """
    with _staged(path) as raw, _compressing(raw, path.suffix) as stream:
        yield lambda line: stream.write(line.encode("utf-8", "surrogatepass"))


@contextmanager
def _staged(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside ``path`` that takes its place when the block ends well."""
    try:
        with whole_file(path) as stream:
            yield stream
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be written ({problem.strerror or problem}).") from None


@contextmanager
def _compressing(raw: BinaryIO, suffix: str) -> Iterator[BinaryIO]:
    if suffix == ".gz":
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
            yield cast(BinaryIO, packed)
    elif suffix == ".bz2":
        with bz2.BZ2File(raw, "wb") as zipped:
            yield cast(BinaryIO, zipped)
    elif suffix == ".xz":
        with lzma.LZMAFile(raw, "wb", preset=6) as stream:
            yield cast(BinaryIO, stream)
    elif suffix == ".zst":
        with zstandard.ZstdCompressor(level=9).stream_writer(raw, closefd=False) as writer:
            yield cast(BinaryIO, writer)
    else:
        yield raw
