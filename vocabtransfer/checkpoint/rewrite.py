"""Write a checkpoint with another vocabulary: new tables, everything else of the source byte for byte."""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.auto_tokenizer import PLAIN_MODULE, keep_ids
from vocabtransfer.checkpoint.checkpoint import Checkpoint
from vocabtransfer.checkpoint.layout import VocabTensor
from vocabtransfer.checkpoint.plan import (
    Link,
    WritePlan,
    check_space,
    new_shape,
    plan_checkpoint,
    shard_entries,
    shard_metadata,
)
from vocabtransfer.checkpoint.settings import renumber_settings
from vocabtransfer.checkpoint.tensors import (
    INDEX_NAME,
    TORCH_DTYPES,
    Shard,
    TensorInfo,
    build_header,
    load_rows,
    nbytes,
    raw_bytes,
)
from vocabtransfer.checkpoint.verify import verify_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.copying import copy_range, place_file, write_all
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.manifest import MANIFEST_NAME, write_manifest
from vocabtransfer.files.staging import check_target, staged_folder
from vocabtransfer.progress import step, track
from vocabtransfer.public import public
from vocabtransfer.tokenization.save import save_tokenizer

Rows = Callable[[VocabTensor, int, int], torch.Tensor]
Check = Callable[[Path], object]

BLOCK_ELEMENTS = 1 << 22
# Where the head has a bias, a padding row gets this one: no softmax leaves it anything, and every float dtype holds it.
PADDING_BIAS = -1e4
GIGABYTE = 1e9


@dataclass(frozen=True)
class WriteReport:
    """What was written. ``notes`` has a sentence for everything a person should know (dropped ids, shared storage)."""

    path: Path
    bytes_written: int
    bytes_linked: int
    tensors_rewritten: tuple[str, ...]
    padded_rows: int
    seconds: float
    notes: tuple[str, ...] = ()


@public
def write_checkpoint(
    source: Checkpoint,
    target: Path,
    *,
    tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
    extra_files: Mapping[str, bytes] | None = None,
    link: Link = "hard",
    overwrite: bool = False,
    pad_to_multiple_of: int = 1,
    check: Check | None = None,
) -> WriteReport:
    """Write ``source`` with the vocabulary of ``tokenizer`` into the folder ``target``.

    ``rows(tensor, start, stop)`` gives rows ``start`` to ``stop`` of the new table: (stop - start, width) for tables,
    (stop - start,) for biases, in any float dtype (integers for a lookup); stop is at most the size of the new
    vocabulary. It is called in ascending blocks, once per block and tensor. Values are rounded to the storage dtype of
    the source's tensor.

    Shards without vocabulary-shaped tensors are hard-linked (``link="hard"``; to whatever the source is made of, the
    hub's cache too) or copied. Padding rows, up to a multiple of ``pad_to_multiple_of``, are the mean of all other
    rows, whose logit is never the highest, with a bias that rules them out where the head has one, and are suppressed
    in generation_config.json. ``extra_files`` (name -> content) come on top.

    The folder is filled beside ``target``, verified, given to ``check`` (which raises what is wrong with it), flushed,
    and renamed: whatever happens, ``target`` is the old state or the new one. Raises `VocabTransferError` when the
    target exists (unless ``overwrite``, for folders that this function wrote), is being written by another process,
    overlaps the source, has too little room, when a value is not finite, and when verification fails.
    """
    started = time.perf_counter()
    extras = dict(extra_files or {})
    count = max(tokenizer.get_vocab().values(), default=-1) + 1
    plan = plan_checkpoint(
        source,
        target,
        vocabulary_size=count,
        link=link,
        pad_to_multiple_of=pad_to_multiple_of,
        extra_bytes=sum(map(len, extras.values())),
    )
    check_target(plan.target, overwrite)
    _check_extra_names(extras, plan)
    check_space(plan)
    settings = renumber_settings(
        source.config,
        source.generation_config,
        source.vocabulary,
        tokenizer,
        source_name=source.name,
        old_rows=source.layout.vocabulary_rows,
        rows=plan.rows,
    )
    with staged_folder(plan.target, overwrite) as staging:
        sums = write_weights(source, staging, plan, rows)
        linked = place_kept(staging, plan, link)
        write_json(staging / "config.json", settings.config)
        save_tokenizer(tokenizer, staging)
        keep_ids(staging, tokenizer)
        if settings.generation_config is not None:
            write_json(staging / "generation_config.json", settings.generation_config)
        for name, content in extras.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        with step("verifying the checkpoint"):
            verify_checkpoint(staging, source, tokenizer, sums)
        if check is not None:
            check(staging)
        facts = {"vocabtransfer": settings.config["vocabtransfer"]["version"], "source": source.name}
        write_manifest(staging, facts)
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) - linked
    notes = settings.notes
    if linked:
        notes += (
            f"{linked / GIGABYTE:.2f} GB are hard links to files of {source.path}: programs that change weights in "
            "place would change both; --link copy makes the folder independent.",
        )
    names = tuple(tensor.name for tensor in source.layout.tensors)
    seconds = time.perf_counter() - started
    return WriteReport(plan.target, written, linked, names, plan.padded_rows, seconds, notes)


def _check_extra_names(extras: Mapping[str, bytes], plan: WritePlan) -> None:
    taken = {file.name for file in plan.files} | {MANIFEST_NAME, INDEX_NAME, "config.json", "generation_config.json"}
    taken |= {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        f"{PLAIN_MODULE}.py",
    }
    for name in extras:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or name in taken:
            raise UsageError(f"an extra file cannot be called {name!r}: the name is taken, or no name.")


def write_weights(source: Checkpoint, staging: Path, plan: WritePlan, rows: Rows) -> dict[str, int]:
    """Write the touched shards and the index; returns the checksum of every new table."""
    count = plan.rows - plan.padded_rows
    sums: dict[str, int] = {}
    shards = {shard.file: shard for shard in source.shards}
    for file in plan.files:
        if file.action == "rewrite":
            sums |= _rewrite_shard(source, shards[file.source], staging / file.name, plan.rows, count, rows)
    if source.sharded:
        _write_index(source, staging, plan.rows)
    return sums


def _rewrite_shard(source: Checkpoint, shard: Shard, target: Path, rows: int, count: int, give: Rows) -> dict[str, int]:
    head, order = build_header(shard_entries(source, shard, rows), shard_metadata(shard))
    infos = {info.name: info for info in shard.tensors}
    vocabulary = {tensor.name: tensor for tensor in source.layout.tensors}
    sums: dict[str, int] = {}
    with shard.file.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        write_all(new, memoryview(head))
        pending: tuple[int, int] | None = None  # kept bytes not copied yet: neighbours are moved in one go
        for name, _ in order:
            info = infos[name]
            if name not in vocabulary:
                pending = _extend(pending, info, old, new)
                continue
            if pending is not None:
                copy_range(old, new, pending[0], pending[1] - pending[0])
                pending = None
            sums[name] = write_table(new, info, vocabulary[name], rows, count, give)
        if pending is not None:
            copy_range(old, new, pending[0], pending[1] - pending[0])
    return sums


def _extend(pending: tuple[int, int] | None, info: TensorInfo, old: Any, new: Any) -> tuple[int, int]:
    if pending is None:
        return info.begin, info.end
    if pending[1] == info.begin:
        return pending[0], info.end
    copy_range(old, new, pending[0], pending[1] - pending[0])
    return info.begin, info.end


def write_table(new: Any, info: TensorInfo, tensor: VocabTensor, rows: int, count: int, give: Rows) -> int:
    """Stream one table: the given rows, the padding, the spare rows as they were. Returns the CRC-32 of its bytes."""
    checksum = 0
    row_shape = info.shape[1:] if tensor.part != "output_bias" else ()
    is_integer = tensor.part == "lookup"
    total = torch.zeros(row_shape, dtype=torch.float64)
    for start, stop in track(list(_blocks(count, row_shape)), f"writing {info.name}"):
        block = give(tensor, start, stop)
        if block.shape != (stop - start, *row_shape):
            raise ValueError(f"rows {start} to {stop} of {info.name!r} came with shape {tuple(block.shape)}")
        block = block.detach().to("cpu", TORCH_DTYPES[info.dtype])
        _check_finite(block, start, info.name)
        if rows > count and not is_integer:
            total += block.sum(dim=0, dtype=torch.float32)
        checksum = _write_block(new, block, checksum)
    if rows > count:
        row = torch.full_like(total, PADDING_BIAS) if tensor.part == "output_bias" else total / count
        row = load_rows(info, 0, 1)[0] if is_integer else row
        block = row.to(TORCH_DTYPES[info.dtype]).expand(rows - count, *row_shape)
        checksum = _write_block(new, block, checksum)
    if tensor.spare:
        checksum = _write_block(new, load_rows(info, info.shape[0] - tensor.spare, info.shape[0]), checksum)
    return checksum


def _write_block(new: Any, block: torch.Tensor, checksum: int) -> int:
    data = raw_bytes(block)
    write_all(new, data)
    return zlib.crc32(data, checksum)


def _blocks(count: int, row_shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    width = row_shape[0] if row_shape else 1
    block = max(1, BLOCK_ELEMENTS // width)
    for start in range(0, count, block):
        yield start, min(start + block, count)


def _check_finite(block: torch.Tensor, start: int, name: str) -> None:
    low, high = torch.aminmax(block)  # both carry a NaN on, and this is far faster than looking at every value
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        good = torch.isfinite(block).reshape(len(block), -1).all(dim=1)
        row = start + int((~good).nonzero()[0])
        raise VocabTransferError(f"row {row} of the new {name!r} is not finite in {block.dtype}: nothing was written.")


def place_kept(staging: Path, plan: WritePlan, link: Link) -> int:
    """Link or copy the files that stay as they are; returns the bytes that are links."""
    linked = 0
    for file in plan.files:
        if file.action == "rewrite":
            continue
        (staging / file.name).parent.mkdir(parents=True, exist_ok=True)
        with step(f"placing {file.name}"):
            if place_file(file.source, staging / file.name, link if file.action == "link" else "copy"):
                linked += file.bytes
    return linked


def _write_index(source: Checkpoint, staging: Path, rows: int) -> None:
    vocabulary = {tensor.name: tensor for tensor in source.layout.tensors}
    total_size = total_parameters = 0
    for name, info in source.tensors.items():
        shape = new_shape(info, vocabulary[name], rows) if name in vocabulary else info.shape
        total_size += nbytes(info.dtype, shape)
        total_parameters += torch.Size(shape).numel()
    old = read_json(source.path / INDEX_NAME).get("metadata")
    metadata = dict(old) if isinstance(old, dict) else {}
    metadata["total_size"] = total_size
    if "total_parameters" in metadata:
        metadata["total_parameters"] = total_parameters
    weight_map = {name: info.file.name for name, info in source.tensors.items()}
    write_json(staging / INDEX_NAME, {"metadata": metadata, "weight_map": weight_map})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write sorted, indented JSON: the same value gives the same bytes."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
