"""The name of a token map's file, and what is said where it is not there. Light to import."""

from pathlib import Path

from vocabtransfer.errors import VocabTransferError

#: The file that lies beside a checkpoint made by a transfer.
MAP_FILE = "token_map.safetensors"


def no_map(path: Path) -> VocabTransferError:
    """Return the error for a token map that is not there."""
    return VocabTransferError(f"There is no token map at {path}; build the checkpoint again or name another folder.")
