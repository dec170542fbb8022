"""Reading what users type: files that must exist, and columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer

from vocabtransfer.errors import UsageError

if TYPE_CHECKING:
    from vocabtransfer.files.text import Text

KINDS = "plain, JSONL, CSV, TSV, Parquet or a datasets folder; gz, bz2, xz, zst"
PAIR_KINDS = "TSV, CSV, JSONL, Parquet, TMX or two Moses files; plain, gz, bz2, xz or zst"
COLUMNS_HELP = "The two columns or fields, named or counted from 0: en,nl or 1,2."
FIELD_HELP = "The field that holds the text in JSONL, CSV, Parquet ..., named or counted from 0 [default: found]."
RUNNING = "Where models run"
DEVICE_HELP = "Where the model runs: cpu, cuda, cuda:N, mps, or auto: a GPU where there is one"
DEVICE = typer.Option(None, "--device", help=f"{DEVICE_HELP} [default: cpu].", rich_help_panel=RUNNING)
DTYPE = typer.Option(
    None, "--dtype", help="Its precision [default: float32 on a CPU, as stored elsewhere].", rich_help_panel=RUNNING
)
MEMORY = typer.Option(
    None,
    "--memory",
    help="What a model may take, such as 6GB; a larger one runs layer by layer [default: half of the free].",
    rich_help_panel=RUNNING,
)
LIMIT = typer.Option(
    None, "--memory", help="What it may take, such as 6GB [default: what is free].", rich_help_panel=RUNNING
)
MAX_RATIO = typer.Option(3.0, help="How many times longer or shorter than usual a translation may be.")
MAX_WORDS = typer.Option(256, min=1, help="Words a sentence may have.")
FIELD = typer.Option(None, "--field", help=FIELD_HELP)


def memory_bytes(text: str | None) -> int | None:
    """Return the bytes of ``--memory``; `UsageError` for what is no size."""
    from vocabtransfer.running.settings import parse_bytes

    return None if text is None else parse_bytes(text)


def link_kind(text: str) -> Literal["hard", "copy"]:
    """Return what ``--link`` says; `UsageError` for another word."""
    if text not in ("hard", "copy"):
        raise UsageError(f"--link is hard or copy, not {text!r}.")
    return cast(Literal["hard", "copy"], text)


def existing(paths: Sequence[Path], option: str) -> tuple[Path, ...]:
    """Return the paths; `UsageError` naming the option and the first that does not exist."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"{option} {path}: there is no such file or folder.")
    return tuple(paths)


def text_files(paths: list[Path], option: str, field: str | None) -> "Text":
    """Return the text of files that exist."""
    from vocabtransfer.files.text import read_text

    return read_text(existing(paths, option), field=field)


def column_pair(text: str | None) -> tuple[int | str, int | str] | None:
    """Return the two columns of ``1,2`` or ``en,nl``; `UsageError` for anything else."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(
            f"--columns takes two numbers counted from 0, or two names, such as 1,2 or en,nl, not {text!r}."
        )
    first, second = (int(part) if part.isascii() and part.isdecimal() else part for part in parts)
    return first, second
