"""Lines of text files, plain or compressed, checked on the way: one sentence says which file and line is at fault."""

import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from vocabtransfer.errors import VocabTransferError

_SNIFFED_BYTES = 1 << 16
_MAX_LINE_BYTES = 1 << 24
# A text may hold a stray control byte; executables, weights and archives are full of them.
_MAX_CONTROLS = 4
_MAX_CONTROL_SHARE = 0.005
_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_CORRUPT = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile)

_COMPRESSIONS = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressing gzip, xz and Zstandard as its first bytes tell (not its name).

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
        raise VocabTransferError(f"{path} is damaged or cut short ({detail}): get it again.") from None
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be read ({problem.strerror or problem}).") from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a UTF-8 text file, one line in memory at a time.

    Only ``\\n`` and ``\\r\\n`` end a line; a byte-order mark is dropped. Raises `VocabTransferError` for files that are
    missing, damaged, binary or archives, for UTF-16, for bytes that are not UTF-8 (with the line) and for giant lines.
    """
    with open_bytes(path) as stream:
        _refuse_binary(path, _peek(stream, _SNIFFED_BYTES))
        for number, raw in enumerate(iter(partial(stream.readline, _MAX_LINE_BYTES + 1), b""), 1):
            if len(raw) > _MAX_LINE_BYTES:
                raise VocabTransferError(f"{path}, line {number} is longer than 16 MiB: this is not text in lines.")
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield number, raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as problem:
                byte = problem.object[problem.start]
                raise VocabTransferError(
                    f"{path}, line {number} is not UTF-8 (byte 0x{byte:02x}): convert the file with iconv."
                ) from None


def read_text(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the lines of several text files, one after the other, without empty lines and lines that hold NULs.

    Raises `VocabTransferError` as `read_lines` does.
    """
    for path in paths:
        for _, line in read_lines(path):
            if line.strip() and "\0" not in line:
                yield line


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
                packed = self._frame.unused_data or self._raw.read(_SNIFFED_BYTES)
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            else:
                packed = self._raw.read(_SNIFFED_BYTES)
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
    """Write bytes compressed as the suffix tells (.gz, .xz, .zst, else plain), whole or not at all.

    The same bytes give the same file: no times or names are stored. Raises `VocabTransferError` when it cannot be
    written; what was there before is then still there.
    """
    compress = {
        ".gz": lambda: gzip.compress(data, mtime=0),
        ".xz": lambda: lzma.compress(data, preset=6),
        ".zst": lambda: zstandard.ZstdCompressor(level=19).compress(data),
    }.get(path.suffix, lambda: data)
    staged = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with staged.open("wb") as stream:
                stream.write(compress())
                stream.flush()
                os.fsync(stream.fileno())
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be written ({problem.strerror or problem}).") from None
