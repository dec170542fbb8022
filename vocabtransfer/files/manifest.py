"""The list of files that this library wrote into a folder: what makes it safe to replace the folder later."""

import hashlib
import json
from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json

MANIFEST_NAME = "vocabtransfer.json"
# Larger files are weights: a change shows in their size or in a date after the manifest's.
HASHED_BYTES = 1 << 26
DATE_TOLERANCE = 2.0


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write ``vocabtransfer.json``: the facts given, and size and hash of every file the folder has by now."""
    files = {}
    for path in _files(folder):
        entry: dict[str, Any] = {"bytes": path.stat().st_size}
        if entry["bytes"] <= HASHED_BYTES:
            entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        files[path.relative_to(folder).as_posix()] = entry
    text = json.dumps({**facts, "files": files}, ensure_ascii=False, indent=2)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8", newline="\n")


def refuse_foreign_files(folder: Path) -> None:
    """Raise `VocabTransferError` unless every file in the folder is as this library wrote it, by its manifest."""
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        raise VocabTransferError(
            f"{folder} was not written by vocabtransfer, so it is not overwritten: choose another."
        )
    files = read_json(manifest).get("files")
    files = files if isinstance(files, dict) else {}
    latest = manifest.stat().st_mtime + DATE_TOLERANCE
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST_NAME and not _unchanged(path, files.get(name), latest):
            state = "was changed since" if name in files else "is not from"
            raise VocabTransferError(
                f"{path} {state} the run that wrote this folder, so the folder is not overwritten: move it away first."
            )


def _unchanged(path: Path, entry: Any, latest: float) -> bool:
    status = path.lstat()
    if not isinstance(entry, dict) or path.is_symlink() or status.st_size != entry.get("bytes"):
        return False
    if "sha256" in entry:
        return bool(hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"])
    return status.st_mtime <= latest


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
