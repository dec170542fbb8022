"""JSON files from strangers: read, or refused in one sentence."""

import json
import re
from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON object (or, if asked, list); `VocabTransferError` names a file that is missing, damaged or other."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be read: {problem.strerror or problem}.") from None
    except ValueError as problem:
        raise damaged(path, f"it is not JSON ({problem})") from None
    if not isinstance(data, kind):
        raise damaged(path, f"it is not a JSON {'object' if kind is dict else 'list'}")
    return data


def parse_json(content: str | bytes) -> Any:
    """Parse JSON; ValueError for what is none, is nested too deep, or has half a character (a lone surrogate) in a text.

    Such a text can be escaped in JSON, but no library takes it and no file can hold it.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        data = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("a text in it has half a character, a lone surrogate") from None
    return data


def damaged(file: Path, reason: str) -> VocabTransferError:
    """Return the error that says that a file is damaged, and how."""
    return VocabTransferError(f"{file} is damaged: {reason}.")
