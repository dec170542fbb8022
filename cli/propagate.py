"""`vocabtransfer propagate`: an adapted vocabulary carried to an instruct model, or outer layers restored."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import link_kind
from .output import JSON_OPTION, print_json, print_table, quiet_transformers

if TYPE_CHECKING:
    from vocabtransfer.checkpoint import WriteReport
    from vocabtransfer.propagation import PropagationResult, RestoreResult

MODELS, HOW, RESULT = "Models", "How", "Result"


def propagate(
    adapted: str = typer.Option(
        ..., help="The adapted model: folder, alias, hub id, or the folder of a LoRA adapter.", rich_help_panel=MODELS
    ),
    instruct: str = typer.Option(
        ..., help="The instruct model (with --restore-layers: the chat model before).", rich_help_panel=MODELS
    ),
    base: str | None = typer.Option(
        None, help="The base model that both come from (not with --restore-layers).", rich_help_panel=MODELS
    ),
    output: Path = typer.Option(..., help="Folder to write.", rich_help_panel=RESULT),
    method: str = typer.Option("conversion", help="conversion, overlap or swap.", rich_help_panel=HOW),
    body_lambda: float | None = typer.Option(
        None,
        help="Add this share of what adaptation did to the layers [default: 0; 1 for a LoRA adapter].",
        rich_help_panel=HOW,
    ),
    ridge: float = typer.Option(0.0, min=0, help="Pull the fitted map towards the identity.", rich_help_panel=HOW),
    append_missing: bool = typer.Option(
        True, help="Append tokens that only the instruct model has, with their rows.", rich_help_panel=HOW
    ),
    restore_layers: int | None = typer.Option(
        None,
        min=1,
        help="For an adapted chat model, without --base: interpolate so many first and last layers back (ElChat).",
        rich_help_panel=HOW,
    ),
    restore_weight: float = typer.Option(
        0.5, min=0, max=1, help="Share of the chat model before in the restored layers.", rich_help_panel=HOW
    ),
    link: str = typer.Option("hard", help="Unchanged shards: hard (links) or copy.", rich_help_panel=RESULT),
    pad_to_multiple_of: int = typer.Option(1, min=1, help="Round the number of rows up.", rich_help_panel=RESULT),
    allow_pickle: bool = typer.Option(False, help="Accept .bin weights (they can run code).", rich_help_panel=MODELS),
    overwrite: bool = typer.Option(False, help="Replace an output that vocabtransfer wrote.", rich_help_panel=RESULT),
    as_json: bool = JSON_OPTION,
) -> None:
    """Carry the vocabulary of an adapted base model to an instruct model of the same family, without training.

    Example: `vocabtransfer propagate --base llama3 --adapted ./llama3-nl --instruct ./llama3-chat --output llama3-chat-nl`
    """
    quiet_transformers()
    linked = link_kind(link)
    if restore_layers is not None and base is not None:
        raise UsageError(
            "--restore-layers is for a chat model adapted directly: leave --base out, or use --body-lambda."
        )
    if restore_layers is None and base is None:
        raise UsageError("--base is missing: give the model that the adapted and the instruct model come from.")
    with show_progress(not as_json):
        result: PropagationResult | RestoreResult
        if base is None:
            assert restore_layers is not None
            result = _restore(adapted, instruct, restore_layers, restore_weight, append_missing, allow_pickle)
        else:
            result = _propagate(base, adapted, instruct, method, body_lambda, ridge, append_missing, allow_pickle)
        written = result.save(
            output,
            link=linked,
            overwrite=overwrite,
            pad_to_multiple_of=pad_to_multiple_of,
        )
    facts = summary(result.facts, written)
    if as_json:
        print_json(facts)
    else:
        print_table("Restored" if base is None else "Propagated", _lines(facts))


def _propagate(
    base: str,
    adapted: str,
    instruct: str,
    method: str,
    body_lambda: float | None,
    ridge: float,
    append_missing: bool,
    allow_pickle: bool,
) -> "PropagationResult":
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.propagation import METHODS, open_adapted
    from vocabtransfer.propagation import propagate as run

    if method not in METHODS:
        raise UsageError(f"--method is one of {', '.join(METHODS)}, not {method!r}.")
    opened = open_checkpoint(base, allow_pickle=allow_pickle)
    return run(
        opened,
        open_adapted(adapted, opened, allow_pickle=allow_pickle),
        open_checkpoint(instruct, allow_pickle=allow_pickle),
        method=method,
        body_lambda=body_lambda,
        ridge=ridge,
        append_missing=append_missing,
    )


def _restore(
    adapted: str, original: str, layers: int, weight: float, append_missing: bool, allow_pickle: bool
) -> "RestoreResult":
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.propagation import restore_layers

    return restore_layers(
        open_checkpoint(adapted, allow_pickle=allow_pickle),
        open_checkpoint(original, allow_pickle=allow_pickle),
        layers=layers,
        weight=weight,
        template_rows=append_missing,
    )


def summary(facts: Mapping[str, Any], written: "WriteReport") -> dict[str, Any]:
    """Return what was done and written, as plain data."""
    return {
        **facts,
        "output": str(written.path),
        "bytes_written": written.bytes_written,
        "bytes_linked": written.bytes_linked,
        "padded_rows": written.padded_rows,
        "notes": [*facts.get("notes", ()), *written.notes],
    }


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = _propagation_lines(facts) if "tables" in facts else _restore_lines(facts)
    if facts["appended"]:
        lines.append(("appended", ", ".join(facts["appended"])))
    lines.append(("checkpoint", facts["output"]))
    return lines + [("note", note) for note in facts["notes"]]


def _propagation_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("method", facts["method"]),
        ("vocabulary", f"{facts['vocabulary']:,} tokens"),
        ("rows", ", ".join(f"{count:,} {group}" for group, count in facts["rows_by_group"].items())),
    ]
    for part, table in facts["tables"].items():
        if "rank" in table:
            lines.append(
                (
                    f"{part} table",
                    f"fitted on {table['rows_fitted']:,} rows, rank {table['rank']:,} of {table['hidden']:,}, condition "
                    f"{_figure(table['condition'])}, residual {table['residual_before']:.3f} before and "
                    f"{table['residual_after']:.3f} after",
                )
            )
        for name, group in table["groups"].items():
            lines.append((f"  {name}", _group(group)))
    body = facts["body"]
    lines.append(("body", f"lambda {body['lambda']:g}, {body['tensors_changed']} tensors changed"))
    return lines


def _figure(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.3g}"


def _group(group: dict[str, Any]) -> str:
    said = []
    if "residual_after" in group:
        said.append(f"residual {group['residual_before']:.3f} to {group['residual_after']:.3f}")
    if "norm_before" in group:
        said.append(f"norm {group['norm_before']:.3g} to {group['norm_after']:.3g}, cosine {group['cosine']:.3f}")
    else:
        said.append(f"norm {group['norm_after']:.3g}")
    return "; ".join(said)


def _restore_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    cosines = list(facts["cosines"].values())
    lines = [
        ("layers", f"{facts['layers']} first and last, weight {facts['weight']:g}"),
        ("tensors", f"{len(cosines)} interpolated" + (f", cosines from {min(cosines):.4f}" if cosines else "")),
        ("rows", f"{facts['rows_restored']:,} restored"),
    ]
    return lines
