"""Advisory locks on folders, and which of them this process holds itself."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# A second handle of the same process is refused like a stranger's, so what is ours has to be remembered.
_OURS: Counter[tuple[int, int]] = Counter()


@contextlib.contextmanager
def held(folder: Path, only_if_free: bool = False) -> Iterator[None]:
    """Hold an advisory lock on a folder where the system has them.

    With ``only_if_free``, `BlockingIOError` where the folder is held already; without it the block runs all the same.
    Raises `OSError` for a folder that is not there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    key = _key(handle)
    locked = False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            if only_if_free:
                raise
        except OSError:
            pass  # Some network file systems have no locks on folders; the process number has to do.
        _OURS[key] += locked
        yield
    finally:
        _OURS[key] -= locked
        os.close(handle)


def is_ours(folder: Path) -> bool:
    """Tell whether this process holds the lock of a folder."""
    try:
        facts = folder.stat()
    except OSError:
        return False
    return _OURS[facts.st_dev, facts.st_ino] > 0


def _key(handle: int) -> tuple[int, int]:
    facts = os.fstat(handle)
    return facts.st_dev, facts.st_ino
