"""What is seen to be wrong from the words alone is said before anything heavy is imported: files and models not there."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocabtransfer.files.named import check_built, no_model

from .arguments import existing

#: Options that name files or folders to read.
FILES = frozenset(
    (
        *("alignment", "corpus", "dictionary", "held_out", "keep_text", "other_text", "parallel"),
        *("requests", "source_text", "source_vectors", "target_vectors", "text"),
    )
)
#: Where they are called otherwise, as arguments are; "" for what is written NAME=PATH.
LABELS: Mapping[str, str] = {
    "align corpus:parallel": "corpus",
    "align filter:parallel": "corpus",
    "tokenizer compare:text": "",
}
#: Options and arguments that name models, by command.
MODELS: Mapping[str, tuple[str, ...]] = {
    "adapt": ("model", "teacher"),
    "apply": ("source",),
    "build": ("source", "donor"),
    "calibrate": ("model",),
    "evaluate": ("model", "baseline"),
    "generate": ("model",),
    "leaderboard": ("source", "donor"),
    "propagate": ("adapted", "instruct", "base"),
    "serve": ("model",),
    "translate": ("model",),
}
#: Arguments that are folders of a build, by command.
BUILT: Mapping[str, str] = {"inspect": "checkpoint", "apply": "saved"}
# An alias, or a hub id with an organisation.
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_early(command: str, values: Mapping[str, Any]) -> None:
    """Check the parsed words of a command, named by its whole path ("align corpus").

    Raises `UsageError` for a file or folder that does not exist, and for a model that can be nothing else than one;
    `VocabTransferError` for what can be no folder of a build.
    """
    for name in sorted(FILES & values.keys()):
        label = LABELS.get(f"{command}:{name}", f"--{name.replace('_', '-')}")
        if label and values[name]:
            value = values[name]
            # Older typers turn text into paths only when the command is called.
            existing([Path(each) for each in (value if isinstance(value, list | tuple) else [value])], label)
    if command in BUILT:
        check_built(Path(values[BUILT[command]]))
    for name in MODELS.get(command, ()):
        text = values.get(name)
        if text and not _NAME.fullmatch(text) and not Path(text).expanduser().exists():
            raise no_model(text)
