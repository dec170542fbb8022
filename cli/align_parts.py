"""What the commands of `vocabtransfer align` share: outputs that are not overwritten unasked, and facts in print."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError, VocabTransferError

from .output import print_json, print_table


def check_outputs(outputs: Mapping[str, Path | None], overwrite: bool, inputs: Iterable[Path]) -> None:
    """Refuse outputs, by option, that exist (unless they may be overwritten), that are inputs, or name one file twice."""
    read = {path.resolve() for path in inputs}
    written: set[Path] = set()
    for option, path in outputs.items():
        if path is None:
            continue
        place = path.resolve()
        if place in read or place in written:
            raise UsageError(f"{option} {path} is the name of another file of this command: choose another.")
        written.add(place)
        if path.is_dir():
            raise VocabTransferError(f"{path} is a folder: {option} names a file.")
        if path.exists() and not overwrite:
            raise VocabTransferError(f"{path} exists: choose another name or give --overwrite.")


def check_table(path: Path) -> None:
    """Refuse a name that no table can have."""
    from vocabtransfer.alignment.table import SUFFIXES

    if not path.name.endswith(SUFFIXES):
        raise UsageError(f"--output {path}: the name of a table ends in .tsv, .tsv.gz, .tsv.xz or .tsv.zst.")


def print_facts(title: str, facts: Mapping[str, Any], as_json: bool) -> None:
    """Print facts as one JSON object or as a table."""
    if as_json:
        print_json(facts)
    else:
        print_table(title, ((key.replace("_", " "), _text(value)) for key, value in facts.items()))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(count)} {reason}" for reason, count in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
