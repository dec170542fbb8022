"""`vocabtransfer apply`: a saved map for another size of its family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import DEVICE, DTYPE, FIELD_HELP, KINDS, MEMORY, link_kind, memory_bytes, text_files
from .output import JSON_OPTION, print_json, print_table, quiet_transformers, ran_on, written

ROWS, RESULT = "Rows", "Result"


def apply(
    saved: Path = typer.Argument(
        ..., metavar="MAP", help="A folder that `build` wrote: its map and its tokenizer are used."
    ),
    source: str = typer.Option(
        ..., help="A model with the vocabulary that the map was made for: folder, alias, hub id or GGUF file."
    ),
    output: Path = typer.Option(..., help="Folder to write.", rich_help_panel=RESULT),
    text: list[Path] = typer.Option(
        [], help=f"Text in the target language, to calibrate to: {KINDS}. Repeatable.", rich_help_panel=ROWS
    ),
    field: str | None = typer.Option(None, help=FIELD_HELP, rich_help_panel=ROWS),
    calibrate: bool | None = typer.Option(
        None, help="Match the head to token frequencies [default: where there is text].", rich_help_panel=ROWS
    ),
    norm: str = typer.Option("none", help="Lengths of averaged rows: none, global, script.", rich_help_panel=ROWS),
    seed: int = typer.Option(0, help="For everything random.", rich_help_panel=ROWS),
    pad_to_multiple_of: int = typer.Option(1, min=1, help="Round the number of rows up.", rich_help_panel=RESULT),
    link: str = typer.Option("hard", help="Unchanged shards: hard (links) or copy.", rich_help_panel=RESULT),
    overwrite: bool = typer.Option(False, help="Replace an output that vocabtransfer wrote.", rich_help_panel=RESULT),
    allow_pickle: bool = typer.Option(False, help="Accept .bin weights (they can run code)."),
    revision: str | None = typer.Option(None, help="Hub revision of the source."),
    device: str | None = DEVICE,
    dtype: str | None = DTYPE,
    memory: str | None = MEMORY,
    as_json: bool = JSON_OPTION,
) -> None:
    """Give another size of a family the vocabulary that one size was built with.

    Example: `vocabtransfer apply qwen3-0.6b-tatar --source ./qwen3-8b --output qwen3-8b-tatar`
    """
    from vocabtransfer.initialization.norms import check_norm
    from vocabtransfer.pipeline.applied import apply_saved_map
    from vocabtransfer.running.settings import running_with

    quiet_transformers()
    linked = link_kind(link)
    if calibrate and not text:
        raise UsageError("--calibrate needs text in the target language: give --text.")
    with show_progress(not as_json), running_with(device, dtype, memory_bytes(memory)):
        applied = apply_saved_map(
            saved,
            source,
            output,
            text=text_files(text, "--text", field) if text else None,
            calibrate=calibrate,
            norm=check_norm(norm),
            link=linked,
            pad_to_multiple_of=pad_to_multiple_of,
            overwrite=overwrite,
            allow_pickle=allow_pickle,
            revision=revision,
            seed=seed,
        )
    facts = applied.facts()
    if as_json:
        print_json(facts)
    else:
        print_table("Applied", _lines(facts))


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    proof = facts["proof"]
    rows = [
        ("source", facts["source"]),
        ("vocabulary", f"{facts['tokens']:,} tokens" + (", calibrated" if facts["calibrated"] else "")),
        ("rows", ", ".join(f"{count:,} {rule}" for rule, count in facts["rows_by_rule"].items())),
        ran_on(facts["running"]),
        ("loaded as", proof["loaded"]),
    ]
    return [*rows, *written(proof), ("checkpoint", facts["output"]), *(("note", note) for note in facts["notes"])]
