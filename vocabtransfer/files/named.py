"""What is said of names that mean nothing. Light to import: the command line says it before anything heavy is there."""

from pathlib import Path

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.map_name import MAP_FILE, no_map


def no_model(text: str) -> UsageError:
    """Return the error for a name that can be no model."""
    return UsageError(f"{text!r} is neither a folder, a GGUF file, a known short name, nor a hub id like org/model.")


def check_built(path: Path) -> None:
    """Raise `VocabTransferError` for what can be no folder of a build."""
    if not path.is_dir():
        raise VocabTransferError(f"{path} is not a folder; give one that vocabtransfer built.")
    if not (path / MAP_FILE).exists():
        raise no_map(path / MAP_FILE)
