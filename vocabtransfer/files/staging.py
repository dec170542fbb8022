"""Folders that appear whole or not at all.

A folder is filled beside its place, as ``.NAME.partial-PID``, and renamed when it is complete and on disk. A process
that dies leaves its partial folder behind; the next one to write the same target removes it. One process writes a
target at a time: a second one is refused before it writes anything. Replacing a folder is one step where the kernel can
exchange two names (Linux); elsewhere the old folder is first renamed to ``.NAME.previous-PID`` and, should the process
die between the two renames, put back by the next run.
"""

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.locks import held, is_ours
from vocabtransfer.files.manifest import refuse_foreign_files
from vocabtransfer.files.processes import is_running

AT_FDCWD = -100
RENAME_EXCHANGE = 2
ENTRY_TRIES, ENTRY_WAIT = 100, 0.02


def settled(target: Path) -> Path:
    """Return the absolute place that a path means; a link as its last part is not followed."""
    if target.name in ("", ".."):
        target = target.resolve()
    return target.parent.resolve() / target.name


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a place that a folder cannot be written to without losing something the user has.

    An empty folder is fine. With ``overwrite``, a folder is replaced only when every file in it is one that this
    library wrote and nobody changed since. Raises `VocabTransferError`.
    """
    if target.is_symlink():
        raise VocabTransferError(f"{target} is a symbolic link: give the folder itself.")
    if not target.exists():
        return
    if not target.is_dir():
        raise VocabTransferError(f"{target} is a file: choose another place for the folder.")
    if any(target.iterdir()):
        if not overwrite:
            raise VocabTransferError(
                f"{target} exists already: choose another place, or allow overwriting (`overwrite`)."
            )
        refuse_foreign_files(target)


class BeingWritten(VocabTransferError):
    """Another process is writing the same folder."""


@contextlib.contextmanager
def staged_folder(target: Path, overwrite: bool = False, *, any_case: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes ``target`` when the block ends well and is removed when it does not.

    Before that, everything in it is flushed to disk, so that a crash of the machine leaves the old state or the new.
    With ``any_case``, ``x`` and ``X`` are one target. Raises `BeingWritten` for a target that another process is writing,
    and `VocabTransferError` for one that `check_target` refuses and for what the disk refuses.
    """
    target = settled(target)
    staging = target.with_name(f".{target.name}.partial-{os.getpid()}")
    missing = [parent for parent in target.parents if not parent.exists()]
    ours = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            with _one_at_a_time(target.parent):
                _recover(target)
                check_target(target, overwrite)
                if staging.exists():
                    raise VocabTransferError(f"{target} is being written by another part of this process: wait for it.")
                _refuse_second_writer(target, any_case)
                ours = True
                staging.mkdir()
                stack.enter_context(held(staging))
            yield staging
            _flush(staging)
            _publish(staging, target, overwrite)
    except OSError as problem:
        raise _cannot_write(target, problem) from problem
    finally:
        if ours:
            # After an exchange this is the old folder; after an error or Ctrl-C the unfinished one.
            _remove(staging)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only those that were made here and stayed empty


@contextlib.contextmanager
def reserved(target: Path, *, any_case: bool = False) -> Iterator[None]:
    """Keep others from beginning to write in the target's parent while the block gives a finished thing that name.

    Raises `VocabTransferError` for a target that another process is writing. The parent must be there.
    """
    target = settled(target)
    with _one_at_a_time(target.parent):
        _refuse_second_writer(target, any_case)
        yield


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _publish(staging: Path, target: Path, overwrite: bool) -> None:
    if target.is_dir() and any(target.iterdir()):
        check_target(target, overwrite)
        if not _exchange(staging, target):
            _swap_by_two_renames(staging, target)
    else:
        if os.name == "nt" and target.is_dir():
            target.rmdir()
        staging.rename(target)
    _flush_folder(target.parent)


def _swap_by_two_renames(staging: Path, target: Path) -> None:
    previous = target.with_name(f".{target.name}.previous-{os.getpid()}")
    try:
        target.rename(previous)
        staging.rename(target)
    finally:
        if not target.exists():
            previous.rename(target)
        elif previous.exists():
            _remove(previous)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system cannot (renameat2 is Linux's)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _recover(target: Path) -> None:
    """Clear up after processes that died while writing this target: put back what they moved, remove what they made."""
    for kind in ("previous", "partial"):
        for left in sorted(target.parent.glob(f".{_escaped(target.name)}.{kind}-*")):
            match = re.fullmatch(rf"\.{re.escape(target.name)}\.{kind}-(\d+)", left.name)
            if match is None or left.is_symlink() or not left.is_dir() or not _abandoned(left, int(match[1])):
                continue
            if kind == "previous" and not target.exists():
                left.rename(target)
            else:
                _remove(left)


def _refuse_second_writer(target: Path, any_case: bool) -> None:
    """Refuse a target that another process is writing: one that holds the lock of its unfinished folder."""
    for other in sorted(target.parent.glob(".*.partial-*")):
        name = other.name[1:].rpartition(".partial-")[0]
        same = name.casefold() == target.name.casefold() if any_case else name == target.name
        if not same or other.is_symlink() or not other.is_dir():
            continue
        try:
            with held(other, only_if_free=True):
                pass
        except BlockingIOError:
            raise BeingWritten(
                f"{target.with_name(name)} is being written by another process: wait for it, or choose another place."
            ) from None
        except FileNotFoundError:
            continue  # it was finished in this very moment; what it made is seen before publishing


@contextlib.contextmanager
def _one_at_a_time(parent: Path) -> Iterator[None]:
    """Let one process at a time look around and begin; where there are no locks, all of them."""
    if is_ours(parent):  # a training run holds its folder and saves into it
        yield
        return
    for attempt in range(ENTRY_TRIES):
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(parent, only_if_free=True))
            except BlockingIOError:
                # Somebody who holds the folder for longer is not at its entry (a training run, say).
                if attempt < ENTRY_TRIES - 1:
                    time.sleep(ENTRY_WAIT)
                    continue
            yield
            return


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _abandoned(folder: Path, pid: int) -> bool:
    """Tell whether the writer of a folder is gone: no such process here, and nobody holds the folder's lock.

    The lock also speaks for writers in other containers, whose process numbers mean nothing here.
    """
    if pid != os.getpid() and is_running(pid):
        return False
    try:
        with held(folder, only_if_free=True):
            return True
    except BlockingIOError:
        return False


def _flush(folder: Path) -> None:
    """Flush the folder's files and names to disk; a linked file's content is on disk already."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            if path.stat().st_nlink == 1:
                with path.open("rb+" if os.name == "nt" else "rb") as stream:
                    os.fsync(stream.fileno())
        else:
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(target: Path, problem: OSError) -> VocabTransferError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return VocabTransferError(f"{target} could not be written: the disk is full; nothing was left behind.")
    return VocabTransferError(f"{target} could not be written: {problem.strerror or problem}.")
