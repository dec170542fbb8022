"""`vocabtransfer translate`: a prompt in one head's language, the answer in another's."""

from pathlib import Path
from typing import Any

import typer

from .arguments import DEVICE
from .generate import dtype_settings, read_lines, token_streamer
from .output import JSON_OPTION, print_json, quiet_transformers


def translate(
    model: str = typer.Argument(..., help="A Hydra: folder or hub id."),
    texts: list[str] = typer.Argument(None, help="Texts to translate [default: lines of standard input]."),
    source: str = typer.Option(..., help="The head that reads."),
    target: str = typer.Option(..., help="The head that writes."),
    file: Path | None = typer.Option(None, help="Translate the lines of this file."),
    template: str | None = typer.Option(None, help="The prompt, with {source}, {target} and {text}."),
    chat: bool | None = typer.Option(None, help="Use the source head's chat template [default: if it has one]."),
    max_new_tokens: int | None = typer.Option(
        None, min=1, help="Tokens a translation takes at most [default: by the text's length]."
    ),
    num_beams: int = typer.Option(1, min=1, help="Beams to search with."),
    batch_size: int = typer.Option(8, min=1, help="Texts to generate together."),
    dtype: str = typer.Option("auto", help="float32, bfloat16, float16, or auto: as stored."),
    device: str | None = DEVICE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Translate without having been trained on it; how well depends on the heads and the model.

    One text alone appears token by token, several line by line as their batches are done.

    Example: `vocabtransfer translate hydra "The book is here." --source english --target tatar`
    """
    from vocabtransfer.hydra import HydraForCausalLM

    quiet_transformers()
    lines = read_lines(texts or [], file)
    hydra = HydraForCausalLM.from_pretrained(model, **dtype_settings(dtype, device))
    settings: dict[str, Any] = {"num_beams": num_beams}
    if max_new_tokens is not None:
        settings["max_new_tokens"] = max_new_tokens

    def run(batch: list[str], **extra: Any) -> list[str]:
        done = hydra.translate(
            batch,
            source=source,
            target=target,
            template=template,
            chat=chat,
            batch_size=batch_size,
            **settings,
            **extra,
        )
        return list(done)

    if as_json:
        done = run(lines)
        pairs = [{"text": text, "translation": translation} for text, translation in zip(lines, done, strict=True)]
        print_json({"source": source, "target": target, "translations": pairs})
    elif len(lines) == 1 and num_beams == 1:
        run(lines, streamer=token_streamer(hydra.tokenizer(target)))
    else:
        for start in range(0, len(lines), batch_size):
            for line in run(lines[start : start + batch_size]):
                typer.echo(line)
