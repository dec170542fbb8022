"""Weight files written anew: tables with other rows, tensors with other values, every other byte as it was.

All of it streams in blocks of rows: no more than one block is in memory at a time.
"""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.blocks import groups
from vocabtransfer.blocks import row_blocks as table_blocks
from vocabtransfer.checkpoint.checkpoint import Checkpoint
from vocabtransfer.checkpoint.layout import VocabTensor
from vocabtransfer.checkpoint.plan import WritePlan, new_shape, shard_entries, shard_metadata
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
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.copying import copy_range, write_all
from vocabtransfer.files.json_files import read_json
from vocabtransfer.progress import track

# Rows ``start`` to ``stop`` of a new table: (stop - start, width), or (stop - start,) for a bias; any float dtype.
Rows = Callable[[VocabTensor, int, int], torch.Tensor]
# The same of a tensor whose shape stays: (stop - start, ...); a tensor without axes counts as one row.
Change = Callable[[int, int], torch.Tensor]

BLOCK_ELEMENTS = 1 << 22
# Where the head has a bias, a padding row gets this one: no softmax leaves it anything, and every float dtype holds it.
PADDING_BIAS = -1e4


def write_shards(
    source: Checkpoint, staging: Path, plan: WritePlan, rows: Rows | None, changes: Mapping[str, Change]
) -> dict[str, int]:
    """Write the shards that the plan rewrites; returns the CRC-32 of every new tensor, by its name.

    ``rows`` gives the rows of all tables where the vocabulary changes; ``changes`` other values of single tensors.
    """
    shards = {shard.file: shard for shard in source.shards}
    sums: dict[str, int] = {}
    for file in plan.files:
        if file.action == "rewrite":
            sums |= _write_shard(source, shards[file.source], staging / file.name, plan, rows, changes)
    return sums


def write_index(source: Checkpoint, staging: Path, rows: int) -> None:
    """Write the index of a checkpoint in several files, with the sizes that tables of ``rows`` rows give it."""
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


def write_table(new: Any, info: TensorInfo, tensor: VocabTensor, rows: int, count: int, give: Rows) -> int:
    """Stream one table: the given rows, the padding, the spare rows as they were. Returns the CRC-32 of its bytes."""
    checksum = 0
    row_shape = info.shape[1:] if tensor.part != "output_bias" else ()
    is_integer = tensor.part == "lookup"
    total = torch.zeros(row_shape, dtype=torch.float64)
    for start, stop in track(list(table_blocks(count, math.prod(row_shape))), f"writing {info.name}"):
        block = _checked(give(tensor, start, stop), info, start, (stop - start, *row_shape))
        if rows > count and not is_integer:
            for begin, end in groups(start, stop):  # the sum is the same whatever the blocks
                total += block[begin - start : end - start].sum(dim=0, dtype=torch.float32)
        checksum = _write_block(new, block, checksum)
    if rows > count:
        row = torch.full_like(total, PADDING_BIAS) if tensor.part == "output_bias" else total / count
        row = load_rows(info, 0, 1)[0] if is_integer else row
        block = row.to(TORCH_DTYPES[info.dtype]).expand(rows - count, *row_shape)
        checksum = _write_block(new, block, checksum)
    if tensor.spare:
        checksum = _write_block(new, load_rows(info, info.shape[0] - tensor.spare, info.shape[0]), checksum)
    return checksum


def row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over the first axis, `BLOCK_ELEMENTS` numbers at a time, one row at least.

    The size is fixed: sums over these blocks do not depend on what a run may take.
    """
    count = shape[0] if shape else 1
    size = max(1, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])))
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _write_shard(
    source: Checkpoint,
    shard: Shard,
    target: Path,
    plan: WritePlan,
    rows: Rows | None,
    changes: Mapping[str, Change],
) -> dict[str, int]:
    entries = shard_entries(source, shard, None if rows is None else plan.rows)
    head, order = build_header(entries, shard_metadata(shard))
    infos = {info.name: info for info in shard.tensors}
    vocabulary = {tensor.name: tensor for tensor in source.layout.tensors} if rows is not None else {}
    sums: dict[str, int] = {}
    with shard.file.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        write_all(new, memoryview(head))
        pending: tuple[int, int] | None = None  # kept bytes not copied yet: neighbours are moved in one go
        for name, _ in track(order, f"rewriting {shard.file.name}"):
            info = infos[name]
            if name not in vocabulary and name not in changes:
                pending = _extend(pending, info, old, new)
                continue
            if pending is not None:
                copy_range(old, new, pending[0], pending[1] - pending[0])
                pending = None
            if rows is not None and name in vocabulary:
                sums[name] = write_table(new, info, vocabulary[name], plan.rows, plan.rows - plan.padded_rows, rows)
            else:
                sums[name] = _write_change(new, info, changes[name])
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


def _write_change(new: Any, info: TensorInfo, change: Change) -> int:
    checksum = 0
    for start, stop in row_blocks(info.shape):
        block = _checked(change(start, stop), info, start, (stop - start, *info.shape[1:]))
        checksum = _write_block(new, block, checksum)
    return checksum


def _checked(block: torch.Tensor, info: TensorInfo, start: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return rows in the dtype they are stored in, on the CPU, once they are known to be whole and finite there."""
    if block.shape != shape:
        raise ValueError(f"rows from {start} of {info.name!r} came with shape {tuple(block.shape)} for {shape}")
    block = block.detach().to("cpu", TORCH_DTYPES[info.dtype])
    if block.numel() == 0 or block.dtype == torch.bool:
        return block
    low, high = torch.aminmax(block)  # both carry a NaN on, and this is far faster than looking at every value
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        good = torch.isfinite(block).reshape(len(block), -1).all(dim=1)
        row = start + int((~good).nonzero()[0])
        raise VocabTransferError(
            f"row {row} of the new {info.name!r} is not finite in {info.dtype}: nothing was written."
        )
    return block


def _write_block(new: Any, block: torch.Tensor, checksum: int) -> int:
    data = raw_bytes(block)
    write_all(new, data)
    return zlib.crc32(data, checksum)
