"""JSON files from strangers: read, or refused in one sentence."""

import json
from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON object (or, if asked, list); `VocabTransferError` names a file that is missing, damaged or other."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be read: {problem.strerror or problem}.") from None
    except (ValueError, RecursionError) as problem:
        raise damaged(path, f"it is not JSON ({problem})") from None
    if not isinstance(data, kind):
        raise damaged(path, f"it is not a JSON {'object' if kind is dict else 'list'}")
    return data


def damaged(file: Path, reason: str) -> VocabTransferError:
    """Return the error that says that a file is damaged, and how."""
    return VocabTransferError(f"{file} is damaged: {reason}.")
