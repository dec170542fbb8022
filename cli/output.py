"""What the commands share: JSON on request, tables otherwise."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from .wording import as_options

#: Rows of tables that hold sentences of the library.
SENTENCES = ("note", "why")
JSON_OPTION = typer.Option(False, "--json", help="Print one JSON object with the same facts.")


def print_json(facts: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output; its notes speak of options, as all sentences do here."""
    if isinstance(facts.get("notes"), list | tuple):
        facts = {**facts, "notes": [as_options(str(note)) for note in facts["notes"]]}
    typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print two columns under a title."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, as_options(value) if name in SENTENCES else value)
    Console(highlight=False, markup=False, emoji=False).print(table)


def ran_on(running: Mapping[str, str]) -> tuple[str, str]:
    """Return the row that says where models ran."""
    return "models ran on", f"{running['device']} in {running['dtype']}"


def written(proof: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the row with what the proof wrote, if it did, and what it is worth: the rows are made, not yet trained."""
    if not proof["prompt"]:
        return []
    text = f"{proof['prompt']} → {' '.join(proof['generated'].split())}"
    return [("generated", f"{text}  (it runs; `vocabtransfer adapt` teaches it to write)")]


def quiet_transformers() -> None:
    """Keep transformers' progress bars and notices out of our output."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
