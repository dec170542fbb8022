"""`vocabtransfer export`: a checkpoint in the format of another engine."""

import dataclasses
from pathlib import Path

import typer

from vocabtransfer.progress import show_progress

from .output import JSON_OPTION, print_json

export = typer.Typer(help="Write a checkpoint in the format of another engine.", no_args_is_help=True)


@export.callback()
def formats() -> None:
    """Write a checkpoint in the format of another engine."""


@export.command("gguf")
def gguf(
    model: str = typer.Argument(help="The model: folder, short name, hub id or GGUF file."),
    output: Path = typer.Option(..., help="The file to write."),
    kind: str = typer.Option("f16", "--type", help="Type of the matrices: f32, f16, bf16 or q8_0."),
    overwrite: bool = typer.Option(False, help="Replace an existing file."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a model with its tokenizer as a GGUF file.

    Example: `vocabtransfer export gguf smollm2-nl --output smollm2-nl.gguf --type q8_0`
    """
    from vocabtransfer.export import export_gguf

    with show_progress(not as_json):
        report = export_gguf(model, output, kind=kind, overwrite=overwrite)
    if as_json:
        print_json(dataclasses.asdict(report) | {"path": str(report.path)})
    else:
        typer.echo(
            f"{report.path}: {report.tensors} tensors, {report.size:,} bytes, pre-tokenizer {report.pre_tokenizer}"
        )
