"""Options that take several values the way people type them: ``--text a.txt b.txt`` for ``--text a.txt --text b.txt``."""

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

from .choices import show_choices
from .early import check_early
from .wording import speaking_of_options


class GatheringCommand(TyperCommand):
    """A command whose repeatable options also take all the values that follow them.

    Its help shows choices as choices, and files and models that are not there are told before anything is imported.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        show_choices(self)

    def invoke(self, ctx: Any) -> Any:
        """Check the words, then do what they ask for."""
        with speaking_of_options(self.params):
            check_early(_path(ctx), ctx.params)
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option in front of each of its values, then parse as ever."""
        options = {name: option for option in self.params for name in (*option.opts, *option.secondary_opts)}
        arguments = [parameter for parameter in self.params if parameter.param_type_name == "argument"]
        if not any(argument.nargs < 0 for argument in arguments):  # else nobody could tell whose a value is
            args = repeat_options(args, options, bool(arguments))
        return super().parse_args(ctx, args)


def _path(ctx: Any) -> str:
    """Return the command's words without the program's, which are several under ``python -m``."""
    return f"{_path(ctx.parent)} {ctx.info_name}".strip() if ctx.parent is not None else ""


def repeat_options(args: Sequence[str], options: Mapping[str, Any], positional: bool) -> list[str]:
    """Return the words with every repeatable option written before each value that follows it.

    ``positional`` tells that the command takes arguments of its own: what follows an option is then an argument until
    one was seen, so that ``evaluate --text a.txt MODEL`` means what it always did. What follows ``--`` is left alone.
    """
    words: list[str] = []
    waiting, seen, gathering = 0, not positional, ""
    for place, word in enumerate(args):
        option = options.get(word.partition("=")[0]) if word.startswith("-") else None
        if word == "--":
            return [*words, *args[place:]]
        if waiting:
            waiting -= 1
        elif option is not None:
            gathering = word.partition("=")[0] if getattr(option, "multiple", False) else ""
            takes = 0 if getattr(option, "is_flag", False) or getattr(option, "count", False) else option.nargs
            waiting = 0 if "=" in word else takes
        elif word.startswith("-") and word != "-":
            gathering = ""
        elif gathering and seen:
            words.append(gathering)
        else:
            seen = True
        words.append(word)
    return words
