"""Files by reference: a path, or an address that fsspec knows (s3://, gs://, memory://, file:// ...).

Object stores give and take whole files. So a file is copied to a local one before it is read, and a local one is written
and then stored whole: whatever reads paths reads addresses too, and nothing half-written is ever seen.
"""

import fnmatch
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError, VocabTransferError, first_line

_SIGN = "://"


def is_address(reference: str) -> bool:
    """Tell whether a reference is an address rather than a path."""
    return _SIGN in reference


def expanded(references: Iterable[str]) -> list[str]:
    """Return references with patterns (``part-*.tsv.zst``) replaced by what they match, sorted within each.

    Raises `VocabTransferError` for a path that does not exist and a pattern that matches nothing.
    """
    found: list[str] = []
    for reference in references:
        if not any(sign in reference for sign in "*?["):
            found.append(reference)
            continue
        matches = _matches(reference)
        if not matches:
            raise VocabTransferError(f"{reference} matches no file.")
        found += matches
    for reference in found:
        if not is_address(reference) and not Path(reference).is_file():
            raise VocabTransferError(f"{reference} does not exist or is no file.")
    return found


def listed(folder: str, pattern: str) -> list[str]:
    """Return the references of the files in a folder whose names match, sorted; none where there is no such folder."""
    if not is_address(folder):
        return sorted(str(path) for path in Path(folder).glob(pattern))
    with _told(folder):
        system, path = _system(folder)
        # A listing may be cached by the client, and other processes write here.
        system.invalidate_cache()
        names = system.ls(path, detail=False) if system.exists(path) else []
        return sorted(str(system.unstrip_protocol(name)) for name in names if fnmatch.fnmatch(Path(name).name, pattern))


def joined(folder: str, name: str) -> str:
    """Return the reference of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


@contextmanager
def fetched(reference: str) -> Iterator[Path]:
    """Give a local file with the content of a reference: the file itself, or a copy that is removed afterwards.

    Raises `VocabTransferError` where it cannot be had, `UsageError` for a kind of address that nothing installed reads.
    """
    if not is_address(reference):
        yield Path(reference)
        return
    with tempfile.TemporaryDirectory(prefix="vocabtransfer-") as folder:
        copy = Path(folder) / Path(reference).name
        with _told(reference):
            system, path = _system(reference)
            system.get_file(path, str(copy))
        yield copy


@contextmanager
def stored(reference: str) -> Iterator[Path]:
    """Give the path of a file to write, whole; when the block ends well the reference holds it.

    The folder is made where it is missing. Raises `VocabTransferError` where the file cannot be stored.
    """
    if not is_address(reference):
        Path(reference).parent.mkdir(parents=True, exist_ok=True)
        yield Path(reference)
        return
    with tempfile.TemporaryDirectory(prefix="vocabtransfer-") as folder:
        copy = Path(folder) / Path(reference).name
        yield copy
        with _told(reference):
            system, path = _system(reference)
            system.makedirs(str(Path(path).parent), exist_ok=True)
            system.put_file(str(copy), path)


def moved(reference: str, to: str) -> None:
    """Give what a reference holds another name in the same place."""
    if not is_address(reference):
        Path(reference).replace(to)
        return
    with _told(reference):
        system, path = _system(reference)
        system.mv(path, _system(to)[1])


def removed(reference: str) -> None:
    """Remove what a reference holds."""
    if not is_address(reference):
        Path(reference).unlink(missing_ok=True)
        return
    with _told(reference):
        system, path = _system(reference)
        system.rm_file(path)


def _system(reference: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(reference)
    except ImportError as problem:  # it names the package to install
        raise UsageError(f"{reference} cannot be read here: {first_line(problem)}") from None
    except ValueError:
        known = "file, s3, gs, http and what else fsspec knows"
        raise UsageError(f"{reference} is no address that can be read: they begin with {known}.") from None
    return system, str(path)


def _matches(reference: str) -> list[str]:
    if not is_address(reference):
        pattern = Path(reference)
        return sorted(str(found) for found in pattern.parent.glob(pattern.name) if found.is_file())
    with _told(reference):
        system, path = _system(reference)
        return [str(system.unstrip_protocol(name)) for name in sorted(system.glob(path))]


@contextmanager
def _told(reference: str) -> Iterator[None]:
    """Turn whatever a store's client raises into one sentence."""
    try:
        yield
    except VocabTransferError:
        raise
    except FileNotFoundError:
        raise VocabTransferError(f"{reference} does not exist.") from None
    except Exception as problem:  # every client has its own family of errors
        raise VocabTransferError(f"{reference} cannot be reached ({first_line(problem)}).") from None
