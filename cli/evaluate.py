"""`vocabtransfer evaluate`: bits per byte on raw text."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from vocabtransfer.progress import show_progress

from .arguments import DEVICE_HELP, DTYPE, FIELD, KINDS, MEMORY, RUNNING, memory_bytes, text_files
from .output import JSON_OPTION, print_json, print_table, quiet_transformers


def evaluate(
    model: str = typer.Argument(..., help="Folder, alias or hub id of a causal language model."),
    text: list[Path] = typer.Option(..., help=f"Raw text: {KINDS}. Repeatable."),
    baseline: str | None = typer.Option(None, help="The untouched source: scored on the same bytes, side by side."),
    field: str | None = FIELD,
    window: int | None = typer.Option(None, min=2, help="Tokens the model sees at once."),
    max_bytes: int | None = typer.Option(None, min=1, help="Stop after so many bytes of text."),
    device: str | None = typer.Option(None, help=f"{DEVICE_HELP} [default: auto].", rich_help_panel=RUNNING),
    dtype: str | None = DTYPE,
    memory: str | None = MEMORY,
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure bits per byte on raw text, comparable whatever the tokenizer, with fertility.

    Example: `vocabtransfer evaluate build/smollm2-tatar --baseline smollm2 --text tatar.txt`
    """
    from vocabtransfer.evaluation import evaluate_checkpoint
    from vocabtransfer.running.settings import running_with

    quiet_transformers()
    files = text_files(text, "--text", field)
    with show_progress(not as_json), running_with(device, dtype, memory_bytes(memory)):
        result = evaluate_checkpoint(model, files, window=window, max_bytes=max_bytes)
        before = evaluate_checkpoint(baseline, files, window=window, max_bytes=max_bytes) if baseline else None
    facts = asdict(result)
    if before is not None:
        facts["baseline"] = asdict(before)
        facts["gain"] = before.bits_per_byte - result.bits_per_byte
    if as_json:
        print_json(facts)
        return
    theirs = facts.pop("baseline", {})
    rows = [
        (key.replace("_", " "), _cell(value) + (f"; the baseline {_cell(theirs[key])}" if key in theirs else ""))
        for key, value in facts.items()
    ]
    print_table("Evaluated", rows)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
