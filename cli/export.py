"""`vocabtransfer export`: a checkpoint in the format of another engine."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .output import JSON_OPTION, print_json

if TYPE_CHECKING:
    from vocabtransfer.export import GgufReport

export = typer.Typer(help="Write a checkpoint in the format of another engine.", no_args_is_help=True)


@export.callback()
def formats() -> None:
    """Write a checkpoint in the format of another engine."""


@export.command("gguf")
def gguf(
    model: str = typer.Argument(help="The model: folder, short name, hub id, GGUF file or Hydra."),
    output: Path = typer.Option(..., help="The file to write; for a Hydra the folder, with two files for each head."),
    kind: str = typer.Option(
        "auto", "--type", help="Type of the matrices: f32, f16, bf16, q8_0, or auto, which keeps a GGUF source's."
    ),
    body: Path | None = typer.Option(
        None, help="The GGUF file whose unchanged tensors are copied (default: the one the model was built from)."
    ),
    pre_tokenizer: str | None = typer.Option(
        None, help="llama.cpp's name for the rules that cut text, where none says just what the tokenizer does."
    ),
    head: list[str] | None = typer.Option(None, help="A head of a Hydra; may be given again (default: all)."),
    overwrite: bool = typer.Option(False, help="Replace an existing file."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a model with its tokenizer as a GGUF file.

    Example: `vocabtransfer export gguf smollm2-nl --output smollm2-nl.gguf --type q8_0`
    """
    from vocabtransfer.export import export_gguf, export_hydra_gguf
    from vocabtransfer.hydra import is_hydra

    if is_hydra(Path(model)):
        if body is not None:
            raise UsageError("--body is for one model; the heads of a Hydra find the file by themselves.")
        with show_progress(not as_json):
            reports = export_hydra_gguf(
                model, output, heads=head or None, kind=kind, pre_tokenizer=pre_tokenizer, overwrite=overwrite
            )
        if as_json:
            print_json({name: _facts(report) for name, report in reports.items()})
        else:
            for report in reports.values():
                _show(report)
        return
    if head:
        raise UsageError(f"{model} is not a Hydra, so it has no --head.")
    with show_progress(not as_json):
        report = export_gguf(model, output, kind=kind, body=body, pre_tokenizer=pre_tokenizer, overwrite=overwrite)
    if as_json:
        print_json(_facts(report))
    else:
        _show(report)


@export.command("ollama")
def ollama(
    model: str = typer.Argument(help="The model: folder, short name, hub id or GGUF file."),
    output: Path = typer.Option(..., help="The folder to write."),
    kind: str = typer.Option("auto", "--type", help="Type of the matrices, as in export gguf."),
    overwrite: bool = typer.Option(False, help="Replace a folder that this command wrote."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a folder for Ollama: the model as GGUF, and a Modelfile.

    Example: `vocabtransfer export ollama smollm2-nl --output smollm2-nl-ollama`
    """
    from vocabtransfer.export import export_ollama

    with show_progress(not as_json):
        report = export_ollama(model, output, kind=kind, overwrite=overwrite)
    if as_json:
        facts = {"path": str(report.path), "chat_format": report.chat_format, "notes": report.notes}
        print_json({**facts, "gguf": _facts(report.gguf)})
        return
    _show(dataclasses.replace(report.gguf, notes=report.notes))
    typer.echo(f"chat format: {report.chat_format or 'none'}")
    typer.echo(f"now: ollama create {report.path.name} -f {report.path / 'Modelfile'}")


@export.command("sentence-transformers")
def sentence_transformers(
    model: str = typer.Argument(help="The model: folder (a sentence-transformers one too), short name or hub id."),
    output: Path = typer.Option(..., help="The folder to write."),
    pooling: str | None = typer.Option(
        None, help="How the states become one vector: mean, cls, max or lasttoken (default: as the source does)."
    ),
    normalize: bool | None = typer.Option(None, help="Bring vectors to length one (default: as the source does)."),
    overwrite: bool = typer.Option(False, help="Replace a folder that this command wrote."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a folder that sentence-transformers loads: encoder, pooling, normalisation.

    Example: `vocabtransfer export sentence-transformers minilm-nl --output minilm-nl-st`
    """
    from vocabtransfer.export import export_sentence_transformers

    with show_progress(not as_json):
        report = export_sentence_transformers(
            model, output, pooling=cast(Any, pooling), normalize=normalize, overwrite=overwrite
        )
    if as_json:
        print_json(_facts(report))
    else:
        typer.echo(
            f"{report.path}: {', '.join(report.modules)}; pooling {report.pooling}, {report.rows:,} rows, texts of up to "
            f"{report.longest or 'any number of'} tokens"
        )


def _facts(report: Any) -> dict[str, Any]:
    return dataclasses.asdict(report) | {"path": str(report.path)}


def _show(report: "GgufReport") -> None:
    typer.echo(
        f"{report.path}: {report.tensors} tensors ({report.kept} as the source stores them), {report.size:,} bytes, "
        f"tokenizer {report.tokenizer}, pre-tokenizer {report.pre_tokenizer}"
    )
    for note in report.notes:
        typer.echo(f"note: {note}")
