"""`vocabtransfer generate`: text from a prompt, token by token, with any head of a Hydra."""

import sys
from pathlib import Path
from typing import Any

import typer

from vocabtransfer.errors import UsageError

from .arguments import DEVICE
from .output import JSON_OPTION, print_json, quiet_transformers


def generate(
    model: str = typer.Argument(..., help="A Hydra, or any causal checkpoint: folder, alias or hub id."),
    prompt: str = typer.Argument(None, help="The text to go on from [default: standard input]."),
    head: str | None = typer.Option(None, help="The head that reads and writes [default: the model's own]."),
    answer: str | None = typer.Option(None, help="Another head to write with."),
    chat: bool = typer.Option(False, help="Put the prompt into the reading head's chat template."),
    max_new_tokens: int = typer.Option(100, min=1, help="Tokens to generate at most."),
    temperature: float = typer.Option(0.0, min=0.0, help="0 takes the likeliest token; above, tokens are drawn."),
    top_p: float = typer.Option(
        1.0, min=0.0, max=1.0, help="Draw from the likeliest tokens of this total probability."
    ),
    num_beams: int = typer.Option(1, min=1, help="Beams to search with."),
    seed: int = typer.Option(0, help="For drawing tokens."),
    dtype: str = typer.Option("auto", help="float32, bfloat16, float16, or auto: as stored."),
    device: str | None = DEVICE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Go on from a prompt; tokens appear as they are made.

    Example: `vocabtransfer generate hydra "Казан шәһәре" --head tatar`
    """
    import torch

    from vocabtransfer.hydra import HydraForCausalLM

    quiet_transformers()
    text = prompt if prompt is not None else sys.stdin.read().rstrip("\n")
    if not text:
        raise UsageError("the prompt is empty: give some text.")
    hydra = HydraForCausalLM.from_pretrained(model, **dtype_settings(dtype, device))
    reader = hydra.head(head or hydra.heads[0])
    writer = hydra.head(answer or reader.name)
    if chat:
        text = rendered_chat(reader.tokenizer, text, reader.name)
    segment = (reader.name, reader.encode([text], special=not chat)[0])
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": temperature > 0}
    if temperature > 0:
        settings |= {"temperature": temperature, "top_p": top_p}
        torch.manual_seed(seed)
    if not as_json and num_beams == 1:
        settings["streamer"] = token_streamer(writer.tokenizer)
    encoding = hydra.encode([segment], output=writer.name).to(hydra.device)
    ids = hydra.generate(**encoding, **settings)[0].tolist()
    generated = writer.decode(ids)
    if as_json:
        facts = {"prompt": text, "generated": generated, "tokens": len(ids), "head": reader.name, "answer": writer.name}
        print_json(facts)
    elif "streamer" not in settings:
        typer.echo(generated)


def dtype_settings(dtype: str, device: str | None) -> dict[str, Any]:
    """Return what ``from_pretrained`` takes for a --dtype and a --device."""
    import torch

    from vocabtransfer.running.plan import find_device

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": "auto"}
    if dtype not in known:
        raise UsageError(f"--dtype is one of {', '.join(known)}, not {dtype!r}.")
    return {"dtype": known[dtype]} | ({} if device in (None, "cpu") else {"device_map": {"": find_device(device)}})


def rendered_chat(tokenizer: Any, text: str, name: str) -> str:
    """Return a user's turn in a chat template, ready for the answer."""
    if not tokenizer.chat_template:
        raise UsageError(f"the head {name!r} has no chat template: leave out --chat.")
    messages = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def token_streamer(tokenizer: Any) -> Any:
    """Return what prints tokens on standard output as they are made; the prompt is not repeated."""
    from transformers import TextStreamer

    # For embeddings as prompts, as heads use them, transformers streams new tokens only: nothing is to be skipped.
    return TextStreamer(tokenizer, skip_prompt=False, skip_special_tokens=True)


def read_lines(texts: list[str], file: Path | None) -> list[str]:
    """Return the texts of the command line, else of a file or standard input, one a line."""
    if texts and file is not None:
        raise UsageError("give either texts or --file, not both.")
    if texts:
        return texts
    if file is not None and not file.is_file():
        raise UsageError(f"--file {file}: there is no such file.")
    from vocabtransfer.files.text import read_text

    lines = list(read_text(file).all_lines()) if file is not None else sys.stdin.read().splitlines()
    if not any(line.strip() for line in lines):
        raise UsageError("there is nothing to translate: give texts, a --file, or lines on standard input.")
    return lines
