"""The library speaks of fields (`text`, `overwrite`, `method='pieces'`), the command line of its options."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vocabtransfer.errors import VocabTransferError

#: Fields that are called otherwise on the command line: by the field, the name of the option.
RENAMED = {
    "evaluate_every": "eval_every",
    "hosts": "allow_host",
    "lora.alpha": "lora_alpha",
    "lora.rank": "lora_rank",
    "origins": "allow_origin",
    "passes": "gradient_accumulation",
    "stages": "stage",
    "training.batch": "batch",
    "training.epochs": "epochs",
    "training.learning_rate": "learning_rate",
    "training.lora.alpha": "lora_alpha",
    "training.lora.rank": "lora_rank",
}
_FIELD = re.compile(r"`([a-z][a-z_.]*)(?:=([^`]*))?`")
_options: ContextVar[dict[str, str] | None] = ContextVar("vocabtransfer_options", default=None)


def as_options(sentence: str) -> str:
    """Return a sentence of the library with the options of the running command in place of fields.

    Names in backticks that are no option of the command stay as they are.
    """
    options = _options.get() or {}

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        flag = options.get(RENAMED.get(name, name))
        if flag is None:
            return match[0]
        plain = (value or "").strip("'\"")
        return flag if plain in ("", "True") else f"{flag} {plain}"

    return _FIELD.sub(option, sentence)


@contextmanager
def speaking_of_options(parameters: Iterable[Any]) -> Iterator[None]:
    """Within the block fields are called as the options of a command; errors that leave it speak of these."""
    named = {p.name: max(p.opts, key=len) for p in parameters if p.param_type_name == "option"}
    arguments = {p.name: p.metavar or p.name.upper() for p in parameters if p.param_type_name == "argument"}
    token = _options.set({**arguments, **named})
    try:
        yield
    except VocabTransferError as problem:
        said = as_options(str(problem))
        problem.args = (said, *problem.args[1:])
        raise
    finally:
        _options.reset(token)
