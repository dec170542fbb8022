"""Make one head of a Hydra an ordinary checkpoint that any tool can load."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import (
    Checkpoint,
    VocabTensor,
    WritePlan,
    WriteReport,
    check_space,
    check_target,
    plan_checkpoint,
)
from vocabtransfer.checkpoint.auto_tokenizer import keep_ids
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.rewrite import place_kept, write_json, write_weights
from vocabtransfer.checkpoint.tensors import load_rows
from vocabtransfer.checkpoint.tying import with_tying
from vocabtransfer.checkpoint.verify import verify_checkpoint
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.hydra.add import PROVENANCE_FILES
from vocabtransfer.hydra.folder import HydraFolder, open_hydra
from vocabtransfer.hydra.settings import with_values
from vocabtransfer.hydra.stored import StoredHead, Table
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.save import save_tokenizer

Rows = Callable[[VocabTensor, int, int], torch.Tensor]


@public
def export_head(
    hydra: str | Path | HydraFolder,
    name: str,
    target: str | Path,
    *,
    link: Link = "hard",
    overwrite: bool = False,
) -> WriteReport:
    """Write one head with the backbone as a standalone checkpoint; its logits are those of the head in the Hydra.

    Shards without a table are hard-linked (or, with ``link="copy"``, copied). A LoRA bound to the head lies in the
    folder ``adapter`` of the result, unmerged. Raises `VocabTransferError` as `write_checkpoint` does.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    head = folder.head(name)
    folder.check_fits(head.config, name)
    source = with_tying(folder.checkpoint, head.config.tied)
    kept = (*PROVENANCE_FILES, "adapter/adapter_config.json", "adapter/adapter_model.safetensors")
    extras = {file: (head.folder / file).read_bytes() for file in kept if (head.folder / file).is_file()}
    return write_model(
        source,
        Path(target).expanduser(),
        rows_count=head.config.rows,
        rows=lambda tensor, start, stop: head_rows(head, tensor, start, stop),
        tokenizer=head.tokenizer,
        config=with_values(source.config, head.config.values),
        generation_config=head.generation_config,
        extra_files=extras,
        link=link,
        overwrite=overwrite,
    )


def head_rows(head: StoredHead, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
    """Read rows of the head's table that a tensor of the model needs: storage dtype, (stop - start, hidden) or flat."""
    table: Table = "output_bias" if tensor.part == "output_bias" else "input"
    if tensor.part == "output" and "output" in head.tables:
        table = "output"
    rows = load_rows(head.tables[table], start, stop) if table != "output_bias" else _bias(head, start, stop)
    return rows


def _bias(head: StoredHead, start: int, stop: int) -> torch.Tensor:
    return load_rows(head.tables["output_bias"], start, stop).reshape(-1)


def write_model(
    source: Checkpoint,
    target: Path,
    *,
    rows_count: int,
    rows: Rows,
    tokenizer: PreTrainedTokenizerFast,
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None,
    extra_files: Mapping[str, bytes],
    link: Link,
    overwrite: bool,
    final_generation_config: Mapping[str, Any] | None = None,
) -> WriteReport:
    """Write a checkpoint with tables of ``rows_count`` rows, given by ``rows``, and settings that are ready.

    Like `write_checkpoint`, but nothing is renumbered and no row is made up. ``final_generation_config`` replaces the
    generation settings after verification: it may name ids that the tokenizer lacks.
    """
    started = time.perf_counter()
    extra_bytes = sum(map(len, extra_files.values()))
    plan = plan_checkpoint(source, target, vocabulary_size=rows_count, link=link, extra_bytes=extra_bytes)
    check_target(plan.target, overwrite)
    check_space(plan)
    with staged_folder(plan.target, overwrite) as staging:
        linked = _fill(source, staging, plan, rows, tokenizer, config, generation_config, extra_files, link)
        if final_generation_config is not None:
            write_json(staging / "generation_config.json", final_generation_config)
        write_manifest(staging, {"source": source.name})
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) - linked
    names = tuple(tensor.name for tensor in source.layout.tensors)
    return WriteReport(plan.target, written, linked, names, 0, time.perf_counter() - started)


def _fill(
    source: Checkpoint,
    staging: Path,
    plan: WritePlan,
    rows: Rows,
    tokenizer: PreTrainedTokenizerFast,
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None,
    extra_files: Mapping[str, bytes],
    link: Link,
) -> int:
    """Put everything into the staged folder and verify it; returns the bytes that are hard links."""
    sums = write_weights(source, staging, plan, rows)
    linked = place_kept(staging, plan, link)
    write_json(staging / "config.json", config)
    save_tokenizer(tokenizer, staging)
    keep_ids(staging, tokenizer)
    if generation_config is not None:
        write_json(staging / "generation_config.json", generation_config)
    for name, content in extra_files.items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(content)
    with step("verifying the checkpoint"):
        verify_checkpoint(staging, source, tokenizer, sums)
    return linked
