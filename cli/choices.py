"""Options with a few fixed values: help shows them as choices, and the shell completes them."""

from collections.abc import Mapping
from typing import Any

#: By the option's name, or by COMMAND:NAME where commands differ. Kept here because the library that knows them takes
#: seconds to import; a test compares both.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "algorithm": ("bpe", "sentencepiece", "unigram", "wordpiece"),
    "aligner": ("vocabtransfer", "neural", "eflomal", "thot"),
    "digits": ("fold", "keep"),
    "dtype": ("float32", "bfloat16", "float16", "auto"),
    "adapt:dtype": ("float32", "bfloat16"),
    "optimizer_dtype": ("float32", "bfloat16"),
    "leaderboard:dtype": ("float32", "bfloat16"),
    "effort": ("accurate", "fast"),
    "engine": ("local", "ray"),
    "link": ("hard", "copy"),
    "norm": ("none", "global", "script"),
    "objective": ("clm", "distill", "alm", "learned_map"),
    "propagate:method": ("conversion", "overlap", "swap"),
    "symmetrise": ("posterior", "intersection", "union", "grow-diag-final-and"),
    "transliterator": ("uroman", "table"),
    "vocabulary": ("auto", "replace", "extend", "swap", "optimise"),
    "leaderboard:vocabulary": ("auto", "replace", "extend", "swap"),
}

#: Training libraries call precisions by these names, and so did earlier versions of `adapt`: both are taken.
SHORT = {"float32": "fp32", "bfloat16": "bf16"}
#: Longer lists stand in the text of the help: in a column of their own they would cut names on narrow terminals.
LONGEST = 15


def choices_of(command: str, option: str) -> tuple[str, ...]:
    """Return the values that an option of a command takes, () where they are not a few fixed ones."""
    return CHOICES.get(f"{command}:{option}") or CHOICES.get(option, ())


def show_choices(command: Any) -> None:
    """Let the options of a command show and complete their choices, in columns that leave room for names."""
    for parameter in command.params:
        values = choices_of(command.name or "", parameter.name)
        if getattr(parameter, "multiple", False) and not parameter.metavar:
            parameter.metavar = "VALUE..."
        if _is_range(parameter) and parameter.param_type_name == "option":
            parameter.metavar = "N"  # "<integer range>" takes room that names need
        if getattr(parameter, "is_bool_flag", False) and parameter.default is False:
            parameter.secondary_opts = []  # nobody needs --no-overwrite, and its column cuts other names
        if not values or parameter.param_type_name != "option":
            continue
        parameter._custom_shell_complete = _completing(values)
        shown = " | ".join(values)
        if len(shown) <= LONGEST:
            parameter.metavar = shown
        elif not all(value in (parameter.help or "") for value in values):
            parameter.help = f"{parameter.help} One of {', '.join(values)}."


def _completing(values: tuple[str, ...]) -> Any:
    return lambda ctx, param, incomplete: [value for value in values if value.startswith(incomplete)]


def _is_range(parameter: Any) -> bool:
    """Tell whether an option takes a number with a bound; newer typers say it otherwise than older ones."""
    kind = type(getattr(parameter, "type", None)).__name__
    return getattr(parameter, "min", None) is not None or kind in ("IntRange", "FloatRange")
