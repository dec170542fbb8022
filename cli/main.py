"""The entry point: gathers the commands and turns every failure into one sentence and an exit code."""

import json
import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.version import __version__

from .adapt import adapt
from .align import align_group
from .apply import apply
from .build import build
from .calibrate import calibrate
from .corpus import corpus_group
from .evaluate import evaluate
from .export import export
from .gathering import GatheringCommand
from .generate import generate
from .head import head
from .inspect import inspect
from .leaderboard import leaderboard
from .propagate import propagate
from .romanize import romanize
from .serve import serve
from .tokenizer import app as tokenizer
from .translate import translate

INTERRUPTED = 130

app = typer.Typer(
    name="vocabtransfer",
    help="Give a language model the vocabulary of another language.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version, is_eager=True),
) -> None:
    """Give a language model the vocabulary of another language."""


for command in (
    build,
    apply,
    inspect,
    evaluate,
    leaderboard,
    adapt,
    propagate,
    calibrate,
    generate,
    translate,
    serve,
    romanize,
):
    app.command()(command)
app.add_typer(align_group, name="align")
app.add_typer(corpus_group, name="corpus")
app.add_typer(export, name="export")
app.add_typer(head, name="head")
app.add_typer(tokenizer, name="tokenizer")
for group in (app, align_group, corpus_group, export, head, tokenizer):
    for registered in group.registered_commands:
        registered.cls = GatheringCommand


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage; tracebacks only with VOCABTRANSFER_DEBUG."""
    words = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        # typer catches Ctrl-C itself and returns the shell's code for it.
        code = app(args=words, standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if isinstance(code, int) and code:
            sys.exit(code)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except UsageError as error:
        _fail(str(error), 2, words)
    except VocabTransferError as error:
        _fail(str(error), 1, words)
    except (KeyboardInterrupt, typer.Abort):
        _fail("Interrupted; nothing half-written is left.", 1, words)
    except MemoryError:
        _fail("There is not enough memory: close other programs or use a smaller model.", 1, words)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}." if error.filename else f"{error}.", 1, words)
    except Exception as error:
        if hasattr(error, "format_message"):  # how typer says that an option is unknown or malformed
            if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
                sys.exit(2)
            _fail(error.format_message(), getattr(error, "exit_code", 2), words)
        if os.environ.get("VOCABTRANSFER_DEBUG"):
            raise
        name = type(error).__name__
        _fail(f"Unexpected {name}: {error}. Set VOCABTRANSFER_DEBUG=1 to see where, and please report it.", 1, words)


def _fail(message: str, code: int, words: list[str]) -> NoReturn:
    message = " ".join(message.split())
    if "--json" in words:
        typer.echo(json.dumps({"error": message, "exit_code": code}, ensure_ascii=False))
    else:
        Console(stderr=True, soft_wrap=True, emoji=False).print(
            f"Error: {message}", style="red", markup=False, highlight=False
        )
    sys.exit(code)


if __name__ == "__main__":
    run()
