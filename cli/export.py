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
    kind: str = typer.Option(
        "auto", "--type", help="Type of the matrices: f32, f16, bf16, q8_0, or auto, which keeps a GGUF source's."
    ),
    body: Path | None = typer.Option(
        None, help="The GGUF file whose unchanged tensors are copied (default: the one the model was built from)."
    ),
    pre_tokenizer: str | None = typer.Option(
        None, help="llama.cpp's name for the rules that cut text, where none says just what the tokenizer does."
    ),
    overwrite: bool = typer.Option(False, help="Replace an existing file."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a model with its tokenizer as a GGUF file.

    Example: `vocabtransfer export gguf smollm2-nl --output smollm2-nl.gguf --type q8_0`
    """
    from vocabtransfer.export import export_gguf

    with show_progress(not as_json):
        report = export_gguf(model, output, kind=kind, body=body, pre_tokenizer=pre_tokenizer, overwrite=overwrite)
    if as_json:
        print_json(dataclasses.asdict(report) | {"path": str(report.path)})
    else:
        typer.echo(
            f"{report.path}: {report.tensors} tensors ({report.kept} as the source stores them), {report.size:,} bytes, "
            f"tokenizer {report.tokenizer}, pre-tokenizer {report.pre_tokenizer}"
        )
        for note in report.notes:
            typer.echo(f"note: {note}")
