"""`vocabtransfer calibrate`: a chat model learns to copy in its new language, and its own good answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from vocabtransfer.progress import show_progress

from .arguments import DEVICE_HELP, DTYPE, FIELD_HELP, KINDS, LIMIT, RUNNING, existing, link_kind, memory_bytes
from .output import JSON_OPTION, print_json, print_table, quiet_transformers, ran_on

DATA, TRAINING, RESULT = "Dialogues", "Training", "Result"


def calibrate(
    model: str = typer.Argument(..., help="A chat model: folder, alias, hub id or GGUF file."),
    text: list[Path] = typer.Option(
        ..., help=f"Running text in the target language: {KINDS}. Repeatable.", rich_help_panel=DATA
    ),
    field: str | None = typer.Option(None, help=FIELD_HELP, rich_help_panel=DATA),
    requests: Path | None = typer.Option(
        None,
        help="Requests in the target language, one a line: the model's own sound answers are learned, too.",
        rich_help_panel=DATA,
    ),
    output: Path = typer.Option(..., help="Folder to write.", rich_help_panel=RESULT),
    tasks: int = typer.Option(200, help="Copy tasks to learn.", rich_help_panel=DATA),
    held_out_tasks: int = typer.Option(40, help="Copy tasks to measure with, before and after.", rich_help_panel=DATA),
    copy_request: list[str] = typer.Option(
        [],
        help="How a copy is asked for, in the target language [default: in English]. Repeatable.",
        rich_help_panel=DATA,
    ),
    longest: int = typer.Option(400, help="Characters to copy, at most.", rich_help_panel=DATA),
    script: str | None = typer.Option(
        None, help="Script of the language, such as Cyrl [default: that of the text].", rich_help_panel=DATA
    ),
    tries: int = typer.Option(2, help="Answers a request may have until one is sound.", rich_help_panel=DATA),
    max_new_tokens: int = typer.Option(256, help="Tokens of an answer, at most.", rich_help_panel=DATA),
    dialogues: Path | None = typer.Option(
        None, help="Keep the dialogues in this file; read them if it is there already.", rich_help_panel=DATA
    ),
    epochs: int = typer.Option(1, help="Passes over the dialogues.", rich_help_panel=TRAINING),
    batch: int = typer.Option(8, help="Dialogues of an update.", rich_help_panel=TRAINING),
    learning_rate: float = typer.Option(2e-4, help="Of the low-rank updates.", rich_help_panel=TRAINING),
    lora_rank: int = typer.Option(8, help="Their rank.", rich_help_panel=TRAINING),
    lora_alpha: float = typer.Option(16.0, help="They count alpha / rank times.", rich_help_panel=TRAINING),
    seed: int = typer.Option(0, help="For everything random.", rich_help_panel=TRAINING),
    device: str | None = typer.Option(None, help=f"{DEVICE_HELP} [default: auto].", rich_help_panel=RUNNING),
    dtype: str | None = DTYPE,
    memory: str | None = LIMIT,
    link: str = typer.Option("hard", help="Unchanged shards: hard (links) or copy.", rich_help_panel=RESULT),
    allow_pickle: bool = typer.Option(False, help="Accept .bin weights (they can run code)."),
    overwrite: bool = typer.Option(False, help="Replace an output that vocabtransfer wrote.", rich_help_panel=RESULT),
    as_json: bool = JSON_OPTION,
) -> None:
    """Mend a chat model after a vocabulary transfer: a light training on copying and on its own good answers.

    Example: `vocabtransfer calibrate ./llama3-chat-nl --text nl.txt.zst --requests vragen.txt --output llama3-chat-nl-2`
    """
    quiet_transformers()
    linked = link_kind(link)
    from vocabtransfer.running.settings import running_with
    from vocabtransfer.self_training.answers import AnswerTraining
    from vocabtransfer.self_training.self_calibration import CalibrateRequest
    from vocabtransfer.self_training.self_calibration import calibrate as run
    from vocabtransfer.training.stage import LoraShape

    request = CalibrateRequest(
        model=model,
        text=existing(text, "--text"),
        output=output,
        requests=existing([requests], "--requests")[0] if requests is not None else None,
        tasks=tasks,
        held_out_tasks=held_out_tasks,
        copy_requests=tuple(copy_request),
        longest=longest,
        script=script,
        tries=tries,
        max_new_tokens=max_new_tokens,
        dialogues=dialogues,
        training=AnswerTraining(epochs, batch, learning_rate, LoraShape(lora_rank, lora_alpha), seed),
        device=device,
        dtype=dtype,
        link=linked,
        overwrite=overwrite,
        allow_pickle=allow_pickle,
    )
    with show_progress(not as_json), running_with(memory=memory_bytes(memory)):
        result = run(request)
    written = result.written
    facts = {
        **result.facts,
        "output": str(written.path),
        "bytes_written": written.bytes_written,
        "bytes_linked": written.bytes_linked,
        "notes": [*result.facts["notes"], *written.notes],
    }
    if as_json:
        print_json(facts)
    else:
        print_table("Calibrated", _lines(facts))


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    before, after = facts["copying_before"], facts["copying_after"]
    made = facts["dialogues"]
    answers = f"{facts['self_answers']:,} of its own answers"
    if "verdicts" in made:
        answers += f" ({', '.join(f'{count} {verdict}' for verdict, count in made['verdicts'].items())})"
    return [
        ("learned", f"{facts['copy_tasks']:,} copy tasks, {answers}"),
        (
            "training",
            f"{facts['updates']:,} updates, {facts['tokens_learned']:,} tokens, loss {facts['first_loss']:.3f} to "
            f"{facts['last_loss']:.3f}",
        ),
        (
            "copied",
            f"{before['copied']:.1%} of {before['tasks']} held-out passages before, {after['copied']:.1%} after",
        ),
        ("share that came back", f"{before['mean']:.3f} before, {after['mean']:.3f} after"),
        ran_on(facts["running"]),
        ("checkpoint", facts["output"]),
        *(("note", note) for note in facts["notes"]),
    ]
