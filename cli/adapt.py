"""`vocabtransfer adapt`: continued pre-training in stages."""

from pathlib import Path
from typing import Any, Literal, cast

import typer

from vocabtransfer.progress import show_progress

from .arguments import DEVICE_HELP, FIELD_HELP, KINDS, existing, link_kind
from .choices import SHORT
from .output import JSON_OPTION, print_json, print_table, quiet_transformers

DATA, TRAINING, COST, RESULT = "Text", "Training", "Memory and speed", "Result"


def adapt(
    model: str = typer.Argument(..., help="The model to train: folder, alias, hub id or GGUF file."),
    text: list[Path] = typer.Option(
        ...,
        help=f"Text in the target language, documents parted by empty lines: {KINDS}. Repeatable.",
        rich_help_panel=DATA,
    ),
    field: str | None = typer.Option(None, help=FIELD_HELP, rich_help_panel=DATA),
    source_text: list[Path] = typer.Option(
        [], help="Text in the source language, mixed in so that it is not forgotten. Repeatable.", rich_help_panel=DATA
    ),
    source_share: float | None = typer.Option(
        None, help="Share of it in what is trained on [default: 0.1].", rich_help_panel=DATA
    ),
    held_out: list[Path] = typer.Option(
        [],
        help="Text to measure bits per byte on, not trained on; what was best on it is kept. Repeatable.",
        rich_help_panel=DATA,
    ),
    held_out_bytes: int = typer.Option(100_000, help="How much of it is scored.", rich_help_panel=DATA),
    output: Path = typer.Option(..., help="Folder to write.", rich_help_panel=RESULT),
    stage: list[str] = typer.Option(
        [],
        help="NAME:BUDGET:LEARNING-RATE, one after the other. NAME: new (rows the transfer made), tables, outer (tables, "
        "first and last two layers), lora, all. BUDGET: updates, or tokens as in 5Mtokens. "
        "[default: 100 updates of new at 3e-4, 500 of tables at 2e-4, 500 of outer at 1e-4; on a CPU 50 of new, 300 of "
        "tables; the first two rates are SmolLM2's, and lower for a model whose rows have smaller numbers].",
        rich_help_panel=TRAINING,
    ),
    objective: str = typer.Option(
        "clm", help="clm (next token), distill or alm (from --teacher).", rich_help_panel=TRAINING
    ),
    teacher: str | None = typer.Option(None, help="The model with the old tokenizer.", rich_help_panel=TRAINING),
    teacher_layer: int | None = typer.Option(
        None,
        help="The layer behind which distill compares states while new rows train [default: a third of them].",
        rich_help_panel=TRAINING,
    ),
    eval_every: int = typer.Option(100, help="Updates between evaluations.", rich_help_panel=TRAINING),
    patience: int | None = typer.Option(
        None,
        help="End a stage after so many evaluations without a new best [default: never].",
        rich_help_panel=TRAINING,
    ),
    block: int | None = typer.Option(
        None,
        help="Tokens of a row [default: what the model takes, at most 1,024; on a CPU 256].",
        rich_help_panel=TRAINING,
    ),
    batch_tokens: int | None = typer.Option(
        None, help="Tokens of an update [default: 8,192; on a CPU 512].", rich_help_panel=TRAINING
    ),
    documents_apart: bool = typer.Option(
        False,
        "--documents-apart",
        help="No document sees those before it in its row of text.",
        rich_help_panel=TRAINING,
    ),
    weight_decay: float = typer.Option(0.1, help="Of the body's matrices; tables have none.", rich_help_panel=TRAINING),
    tables: str = typer.Option(
        "rows",
        help="What rows learn as: rows (each for itself), pieces (what tokens merged from the same parts share), map (what "
        "tokens made from one source row share).",
        rich_help_panel=TRAINING,
    ),
    bpe_dropout: float = typer.Option(
        0.0,
        help="Chance that a token of the text comes apart into the two it was merged from.",
        rich_help_panel=TRAINING,
    ),
    pull: float | None = typer.Option(
        None,
        help="Draw what learns back to its start, by so many times the learning rate [default: 0; for new rows that are "
        "distilled alone, what makes 1 over their stage].",
        rich_help_panel=TRAINING,
    ),
    table_rate: float | None = typer.Option(
        None,
        help="In a stage that trains the body too, tables take so many times its learning rate [default: 5 in a stage all "
        "where a transfer made most rows, else 1].",
        rich_help_panel=TRAINING,
    ),
    lora_rank: int = typer.Option(8, help="Rank of a lora stage's updates.", rich_help_panel=TRAINING),
    lora_alpha: float = typer.Option(32.0, help="They count alpha / rank times.", rich_help_panel=TRAINING),
    seed: int = typer.Option(0, help="For everything random.", rich_help_panel=TRAINING),
    device: str | None = typer.Option(None, help=f"{DEVICE_HELP} [default: auto].", rich_help_panel=COST),
    dtype: str = typer.Option("float32", help="Of computation; parameters stay float32.", rich_help_panel=COST),
    optimizer_dtype: str = typer.Option(
        "float32", help="Of AdamW's two moments; bfloat16 halves them.", rich_help_panel=COST
    ),
    attention: str | None = typer.Option(
        None,
        help="How it is computed: sdpa, eager, flex_attention, flash_attention_2, flash_attention_3 [default: what the "
        "model takes, mostly sdpa].",
        rich_help_panel=COST,
    ),
    gradient_accumulation: int | None = typer.Option(
        None, help="Passes an update [default: so that logits take 512 MiB].", rich_help_panel=COST
    ),
    gradient_checkpointing: bool = typer.Option(
        False, "--gradient-checkpointing", help="Less memory, a third more time.", rich_help_panel=COST
    ),
    cpu: bool = typer.Option(False, "--cpu", help="The same as --device cpu.", rich_help_panel=COST),
    save_every: int = typer.Option(
        100, help="Updates between checkpoints; each evaluation makes one, too.", rich_help_panel=RESULT
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Go on where an interrupted run stopped.", rich_help_panel=RESULT
    ),
    restart_stage: bool = typer.Option(
        False, "--restart-stage", help="With --resume: begin the interrupted stage again.", rich_help_panel=RESULT
    ),
    keep_adapter: bool = typer.Option(
        False, "--keep-adapter", help="Write a PEFT adapter; the last stage is lora.", rich_help_panel=RESULT
    ),
    link: str = typer.Option("hard", help="Unchanged shards: hard (links) or copy.", rich_help_panel=RESULT),
    allow_pickle: bool = typer.Option(False, help="Accept .bin weights (they can run code)."),
    overwrite: bool = typer.Option(False, help="Replace an output that vocabtransfer wrote.", rich_help_panel=RESULT),
    as_json: bool = JSON_OPTION,
) -> None:
    """Train a model further on text of its new language, in stages, resumably.

    Example: `vocabtransfer adapt build/smollm2-dutch --text nl.txt.zst --held-out dev.txt --output smollm2-nl`

    Several processes: `accelerate launch --module vocabtransfer_cli.main adapt ...`, or torchrun in its place.
    """
    from vocabtransfer.training import AdaptRequest, LoraShape, Stage
    from vocabtransfer.training import adapt as run
    from vocabtransfer.training.processes import is_first_process, leave_group

    quiet_transformers()
    linked = link_kind(link)
    request = AdaptRequest(
        model=model,
        text=existing(text, "--text"),
        output=output,
        stages=tuple(Stage.parse(word) for word in stage),
        source_text=existing(source_text, "--source-text"),
        source_share=source_share,
        held_out=existing(held_out, "--held-out"),
        held_out_bytes=held_out_bytes,
        evaluate_every=eval_every,
        save_every=save_every,
        patience=patience,
        block=block,
        batch_tokens=batch_tokens,
        passes=gradient_accumulation,
        gradient_checkpointing=gradient_checkpointing,
        dtype=cast(Literal["fp32", "bf16"], SHORT.get(dtype, dtype)),
        optimizer_dtype=cast(Literal["fp32", "bf16"], SHORT.get(optimizer_dtype, optimizer_dtype)),
        attention=attention,
        documents_apart=documents_apart,
        device=device,
        cpu=cpu,
        weight_decay=weight_decay,
        tables=tables,
        bpe_dropout=bpe_dropout,
        pull=pull,
        table_rate=table_rate,
        lora=LoraShape(lora_rank, lora_alpha),
        keep_adapter=keep_adapter,
        objective=objective,
        teacher=teacher,
        teacher_layer=teacher_layer,
        resume=resume,
        restart_stage=restart_stage,
        link=linked,
        overwrite=overwrite,
        allow_pickle=allow_pickle,
        seed=seed,
        field=field,
    )
    first = is_first_process()
    with show_progress(not as_json and first):
        result = run(request)
    leave_group()
    facts: dict[str, Any] = {"output": str(result.output), **result.facts, "throughput": list(result.throughput)}
    if result.written is not None:
        facts |= {"bytes_written": result.written.bytes_written, "bytes_linked": result.written.bytes_linked}
    if not first:
        return
    if as_json:
        print_json(facts)
    else:
        print_table("Adapted", _lines(facts))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        (
            f"stage {stage['name']}",
            f"{stage['updates']:,} updates, {stage['tokens']:,} tokens, loss {stage['first_loss']:.3f} to "
            f"{stage['last_loss']:.3f}" + ("" if stage["updates"] == stage["planned_updates"] else ", ended early"),
        )
        for stage in facts["stages"]
    ]
    if facts["curve"]:
        lines.append(
            ("bits per byte", f"{facts['curve'][0]['bits_per_byte']:.4f} before, {facts['bits_per_byte']:.4f} after")
        )
    lines += [
        (
            f"speed of {speed['stage']}",
            f"{speed['tokens_per_second']:,.0f} tokens a second, MFU {speed['mfu']:.0%} of "
            f"{speed['peak_operations_per_second'] * speed['devices'] / 1e12:,.2f} TFLOP/s ({speed['peak_source']})",
        )
        for speed in facts["throughput"]
    ]
    return [*lines, ("output", facts["output"])]
