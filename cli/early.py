"""What the words alone show to be wrong is said before anything heavy is imported: files, models, choices, stages."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError
from vocabtransfer.files.named import check_built, no_model
from vocabtransfer.languages import find_language
from vocabtransfer.training.stage import Stage

from .arguments import existing
from .choices import SHORT, choices_of

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

    Raises `UsageError` for a file or folder that does not exist, for a model that can be nothing else than one, for a value
    that is none of a few, a language that is not known and a stage that cannot be read; `VocabTransferError` for what can
    be no folder of a build.
    """
    for name in sorted(FILES & values.keys()):
        label = LABELS.get(f"{command}:{name}", f"--{name.replace('_', '-')}")
        if label and values[name]:
            value = values[name]
            # Older typers turn text into paths only when the command is called.
            existing([Path(each) for each in (value if isinstance(value, list | tuple) else [value])], label)
    if command in BUILT:
        check_built(Path(values[BUILT[command]]))
    for name, value in values.items():
        _check_choice(command.rpartition(" ")[2], name, value)
    if command == "build":
        find_language(values["target"])
    if command == "adapt":
        for words in values["stage"] or ():
            Stage.parse(words)
    for name in MODELS.get(command, ()):
        text = values.get(name)
        if text and not _NAME.fullmatch(text) and not Path(text).expanduser().exists():
            raise no_model(text)


def _check_choice(command: str, option: str, value: Any) -> None:
    choices = choices_of(command, option)
    if choices and isinstance(value, str) and value not in (*choices, *SHORT.values()):
        said = " or ".join(choices) if len(choices) == 2 else f"one of {', '.join(choices)}"
        raise UsageError(f"`{option}` is {said}, not {value!r}.")
