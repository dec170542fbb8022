"""Files that appear whole or not at all.

A file is written beside its place, as ``.NAME.PID.part``, flushed to disk, and renamed. A process that dies leaves its
part behind; the next one to write the same file removes it.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vocabtransfer.files.processes import is_running


@contextlib.contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Give the path of a part to write; it is flushed and takes the place of ``path`` when the block ends well.

    The part has the suffix of ``path``, for writers that go by it. Raises `OSError` for what the disk refuses; what was
    there before is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_parts(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a binary stream whose content becomes the file ``path`` when the block ends well; see `whole_path`."""
    with whole_path(path) as part, part.open("wb") as stream:
        yield stream


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file, whole or not at all; text as UTF-8 with the line ends it has. See `whole_path`."""
    with whole_file(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


def clear_parts(path: Path) -> None:
    """Remove the parts of ``path`` that processes left behind which run no more."""
    shape = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.part(?:{re.escape(path.suffix)})?")
    for left in path.parent.iterdir():
        match = shape.fullmatch(left.name)
        if match and not is_running(int(match[1])) and left.is_file() and not left.is_symlink():
            left.unlink(missing_ok=True)
