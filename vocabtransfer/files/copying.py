"""Copies that never pass through Python's memory: links, reflinks, and byte ranges moved by the kernel."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from vocabtransfer.errors import UsageError, VocabTransferError

Link = Literal["hard", "copy"]
FALLBACK_BLOCK = 8 << 20
KERNEL_BLOCK = 1 << 30
FICLONE = 0x40049409
# A full or failing disk is a fact about the world; any other refusal only rules out this way of copying.
FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def check_link(link: str) -> None:
    """Raise `UsageError` for a way of placing unchanged files that is none."""
    if link not in ("hard", "copy"):
        raise UsageError(f"unchanged files are linked (hard) or copied (copy), not {link!r}.")


def place_file(source: Path, target: Path, link: Link) -> bool:
    """Make ``target`` (which must not exist) have the content of ``source``; True when it is a hard link.

    Symbolic links, as the hub's cache is made of, are followed first. With ``link="hard"`` a file that cannot be
    linked (another file system, no permission) is copied; a copy is a reflink where the file system has them.
    """
    check_link(link)
    source = source.resolve(strict=True)
    if link == "hard":
        with contextlib.suppress(OSError):
            target.hardlink_to(source)
            return True
    with source.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        if not _clone(old, new):
            copy_range(old, new, 0, os.fstat(old.fileno()).st_size)
    return False


def can_link(source: Path, folder: Path) -> bool:
    """Tell whether ``source`` lies on the file system of ``folder``, which hard links need."""
    return source.resolve(strict=True).stat().st_dev == folder.stat().st_dev


def copy_range(source: IO[bytes], target: IO[bytes], begin: int, length: int) -> None:
    """Append ``length`` bytes of ``source``, from offset ``begin``, at the position of ``target``.

    Both are unbuffered files. The kernel moves the bytes (copy_file_range, else sendfile) where it can. Raises
    `VocabTransferError` when the source ends too early, OSError when the disk is full or fails.
    """
    for move in (_copy_file_range, _sendfile, _read_and_write):
        done = move(source, target, begin, length)
        begin += done
        length -= done
        if length == 0:
            return
    raise VocabTransferError(f"{source.name} became shorter while it was copied: make sure that nothing writes to it.")


def write_all(target: IO[bytes], data: memoryview) -> None:
    """Write all of ``data`` to an unbuffered file."""
    while data:
        written = target.write(data)
        data = data[written:]


def _clone(source: IO[bytes], target: IO[bytes]) -> bool:
    try:
        import fcntl

        fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    except (ImportError, OSError):
        return False
    return True


def _copy_file_range(source: IO[bytes], target: IO[bytes], begin: int, length: int) -> int:
    done = 0
    if hasattr(os, "copy_file_range"):
        with _only_fatal_errors():
            while done < length:
                count = min(length - done, KERNEL_BLOCK)
                moved = os.copy_file_range(source.fileno(), target.fileno(), count, offset_src=begin + done)
                if moved == 0:
                    break
                done += moved
    return done


def _sendfile(source: IO[bytes], target: IO[bytes], begin: int, length: int) -> int:
    done = 0
    if hasattr(os, "sendfile"):
        with _only_fatal_errors():
            while done < length:
                count = min(length - done, KERNEL_BLOCK)
                moved = os.sendfile(target.fileno(), source.fileno(), begin + done, count)
                if moved == 0:
                    break
                done += moved
    return done


def _read_and_write(source: IO[bytes], target: IO[bytes], begin: int, length: int) -> int:
    done = 0
    source.seek(begin)
    while done < length:
        data = source.read(min(length - done, FALLBACK_BLOCK))
        if not data:
            break
        write_all(target, memoryview(data))
        done += len(data)
    return done


@contextlib.contextmanager
def _only_fatal_errors() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in FATAL:
            raise
