"""`vocabtransfer evaluate`: bits per byte on raw text."""

from dataclasses import asdict
from pathlib import Path

import typer

from vocabtransfer.progress import show_progress

from .arguments import existing
from .output import JSON_OPTION, print_json, print_table, quiet_transformers


def evaluate(
    model: str = typer.Argument(..., help="Folder, alias or hub id of a causal language model."),
    text: list[Path] = typer.Option(..., help="Raw text; plain, gz, xz or zst. Repeatable."),
    window: int | None = typer.Option(None, min=2, help="Tokens the model sees at once."),
    max_bytes: int | None = typer.Option(None, min=1, help="Stop after so many bytes of text."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure bits per byte on raw text, comparable whatever the tokenizer, with fertility.

    Example: `vocabtransfer evaluate build/smollm2-tatar --text tatar.txt`
    """
    from vocabtransfer.evaluation import evaluate_checkpoint

    quiet_transformers()
    with show_progress(not as_json):
        result = evaluate_checkpoint(model, existing(text, "--text"), window=window, max_bytes=max_bytes)
    facts = asdict(result)
    if as_json:
        print_json(facts)
    else:
        rows = [
            (key.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else str(value))
            for key, value in facts.items()
        ]
        print_table("Evaluated", rows)
