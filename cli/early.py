"""What is seen to be wrong from the words alone is said before anything heavy is imported: files and models not there."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError, VocabTransferError

#: Options that name files or folders to read, and arguments by what messages call them.
FILES: Mapping[str, str] = {
    **dict.fromkeys(("alignment", "corpus", "dictionary", "held_out", "keep_text", "other_text", "parallel"), ""),
    **dict.fromkeys(("requests", "source_text", "source_vectors", "target_vectors", "text"), ""),
    "align corpus:parallel": "corpus",
    "align filter:parallel": "corpus",
}
#: Options of these names that are written NAME=PATH.
NAMED = ("tokenizer compare:text",)
#: Options and arguments that name models, by command.
MODELS: Mapping[str, tuple[str, ...]] = {
    "adapt": ("model", "teacher"),
    "build": ("source", "donor"),
    "calibrate": ("model",),
    "evaluate": ("model", "baseline"),
    "generate": ("model",),
    "leaderboard": ("source", "donor"),
    "propagate": ("adapted", "instruct", "base"),
    "serve": ("model",),
    "translate": ("model",),
}
# An alias, or a hub id with an organisation.
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_early(command: str, values: Mapping[str, Any]) -> None:
    """Check the parsed words of a command, named by its whole path ("align corpus").

    Raises `UsageError` for a file or folder that does not exist, and for a model that can be nothing else than one;
    `VocabTransferError` for what `inspect` cannot open.
    """
    for name, value in values.items():
        label = FILES.get(f"{command}:{name}") or (f"--{name.replace('_', '-')}" if name in FILES else "")
        if label and value and f"{command}:{name}" not in NAMED:
            _check_files(label, value if isinstance(value, list | tuple) else [value])
    if command == "inspect" and not Path(values["checkpoint"]).is_dir():
        raise VocabTransferError(f"{values['checkpoint']} is not a folder; give one that vocabtransfer built.")
    for name in MODELS.get(command, ()):
        text = values.get(name)
        if text and not _NAME.fullmatch(text) and not Path(text).expanduser().exists():
            raise UsageError(
                f"{text!r} is neither a folder, a GGUF file, a known short name, nor a hub id like org/model."
            )


def _check_files(label: str, paths: Any) -> None:
    for path in paths:
        if not Path(path).exists():
            raise UsageError(f"{label} {path}: there is no such file or folder.")
