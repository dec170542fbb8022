"""Layers rewritten tensor by tensor: everything that changes a model's body streams through here, in blocks of rows.

A `Change` gives rows ``start..stop`` (first axis) of a new tensor; `write_changed` puts the changed tensors into shards
of their own and hands back the checkpoint as if it had always had them, ready for `write_checkpoint`.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import (
    Checkpoint,
    TensorInfo,
    WriteReport,
    check_target,
    plan_checkpoint,
    write_checkpoint,
)
from vocabtransfer.checkpoint.plan import Link, is_touched, shard_metadata
from vocabtransfer.checkpoint.rewrite import Rows
from vocabtransfer.checkpoint.tensors import (
    TORCH_DTYPES,
    Shard,
    build_header,
    load_rows,
    load_tensor,
    raw_bytes,
    read_shard,
)
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.copying import copy_range, place_file, write_all
from vocabtransfer.files.staging import settled, staged_folder
from vocabtransfer.progress import step, track
from vocabtransfer.propagation.checks import body, is_arithmetic, same_bytes

Change = Callable[[int, int], torch.Tensor]

BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Destination:
    """Where and how a result is written: the options of `vocabtransfer.checkpoint.write_checkpoint`."""

    target: Path
    link: Link = "hard"
    overwrite: bool = False
    pad_to_multiple_of: int = 1


def rows_of(info: TensorInfo, start: int, stop: int) -> torch.Tensor:
    """Return rows ``start..stop`` of a tensor in float64: ``(stop - start, ...)``; a scalar counts as one row."""
    values = load_rows(info, start, stop) if info.shape else load_tensor(info).reshape(1)
    return values.to(torch.float64)


def row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over the first axis, `BLOCK_ELEMENTS` numbers at a time, one row at least."""
    count = shape[0] if shape else 1
    size = max(1, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])))
    for start in range(0, count, size):
        yield start, min(start + size, count)


def write_result(
    source: Checkpoint,
    destination: Destination,
    changes: Mapping[str, Change],
    *,
    tokenizer: Any,
    rows: Rows,
    extra_files: Mapping[str, bytes],
    inputs: tuple[Checkpoint, ...],
) -> WriteReport:
    """Write ``source`` with new tables (``rows``) and a changed body (``changes``, by tensor name).

    Without changes this is `write_checkpoint`. With them, the changed shards are made first in a folder beside the
    target that is gone at the end, whatever happens; unchanged shards are linked or copied as usual.

    Raises:
        VocabTransferError: the target overlaps one of ``inputs``, and everything that `write_checkpoint` refuses.
    """
    target = settled(destination.target)
    for checkpoint in inputs:
        _refuse_overlap(checkpoint, target)
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "rows": rows,
        "extra_files": extra_files,
        "overwrite": destination.overwrite,
        "pad_to_multiple_of": destination.pad_to_multiple_of,
    }
    if not changes:
        return write_checkpoint(source, target, link=destination.link, **options)
    check_target(target, destination.overwrite)
    _check_space(source, destination, target, len(tokenizer), changes)
    with staged_folder(target.with_name(f".{target.name}.body")) as scratch:
        try:
            changed = write_changed(source, changes, scratch, destination.link)
            report = write_checkpoint(changed, target, link="hard", **options)
        finally:
            for file in scratch.iterdir():
                file.unlink()
    target.with_name(f".{target.name}.body").rmdir()
    return _true_report(report, source, changes)


def write_changed(source: Checkpoint, changes: Mapping[str, Change], folder: Path, link: Link) -> Checkpoint:
    """Write the shards that hold changed tensors into ``folder``; return ``source`` with those in place of its own.

    With ``link="copy"`` the shards that nothing changes are copied too, so that the result shares no file with the
    source; `write_checkpoint` rewrites those with a table in them in any case.
    """
    shards: list[Shard] = []
    for shard in source.shards:
        names = {info.name for info in shard.tensors if _is_current(source, info) and info.name in changes}
        place = folder / shard.file.name
        if names:
            _write_shard(source, shard, place, {name: changes[name] for name in names})
            shards.append(read_shard(place))
        elif link == "copy" and not is_touched(source, shard):
            with step(f"copying {shard.file.name}"):
                place_file(shard.file, place, "copy")
            _flush(place)
            shards.append(read_shard(place))
        else:
            shards.append(shard)
    found = {(shard.file.name, info.name): info for shard in shards for info in shard.tensors}
    tensors = {name: found[info.file.name, name] for name, info in source.tensors.items()}
    return replace(source, shards=tuple(shards), tensors=tensors)


def _write_shard(source: Checkpoint, shard: Shard, place: Path, changes: Mapping[str, Change]) -> None:
    current = {info.name: info for info in shard.tensors if _is_current(source, info)}
    entries = [(info.name, info.dtype, info.shape) for info in current.values()]
    head, order = build_header(entries, shard_metadata(shard))
    with shard.file.open("rb", buffering=0) as old, place.open("xb", buffering=0) as new:
        write_all(new, memoryview(head))
        for name, _ in track(order, f"rewriting {shard.file.name}"):
            info = current[name]
            if name not in changes:
                copy_range(old, new, info.begin, info.nbytes)
                continue
            for start, stop in row_blocks(info.shape):
                block = changes[name](start, stop).to(TORCH_DTYPES[info.dtype])
                if not bool(torch.isfinite(block).all()):
                    raise VocabTransferError(f"the new {name!r} is not finite in {info.dtype}: nothing was written.")
                write_all(new, raw_bytes(block))
        os.fsync(new.fileno())


def _flush(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _is_current(source: Checkpoint, info: TensorInfo) -> bool:
    """Tell whether this is the tensor that the index points to, not a stale copy in another shard."""
    return source.tensors[info.name].file == info.file if info.name in source.tensors else False


def _check_space(
    source: Checkpoint, destination: Destination, target: Path, tokens: int, changes: Mapping[str, Change]
) -> None:
    plan = plan_checkpoint(source, target, vocabulary_size=max(1, tokens), link=destination.link)
    shards = {source.tensors[name].file for name in changes}
    needed = plan.bytes_needed + sum(shard.size for shard in source.shards if shard.file in shards)
    if needed > plan.bytes_free:
        raise VocabTransferError(
            f"{target} needs {needed / 1e9:.2f} GB while it is written, but its disk has {plan.bytes_free / 1e9:.2f} GB "
            "free: make room, or choose another disk."
        )


def _refuse_overlap(checkpoint: Checkpoint, target: Path) -> None:
    folder, wanted = checkpoint.path.resolve(), target.resolve()
    if folder == wanted or folder in wanted.parents or wanted in folder.parents:
        raise VocabTransferError(
            f"{target} and the model {checkpoint.name} in {checkpoint.path} overlap: choose another output."
        )


def _true_report(report: WriteReport, source: Checkpoint, changes: Mapping[str, Change]) -> WriteReport:
    """Correct a report for which the shards made on the way were files of the source."""
    shared = {shard.file.stat().st_ino for shard in source.shards}
    sizes = [(file.stat().st_ino, file.stat().st_size) for file in report.path.rglob("*") if file.is_file()]
    linked = sum(size for inode, size in sizes if inode in shared)
    notes = tuple(note for note in report.notes if "are hard links to files of" not in note)
    if linked:
        notes += (
            f"{linked / 1e9:.2f} GB are hard links to files of {source.path}: programs that change weights in place "
            "would change both; --link copy makes the folder independent.",
        )
    return replace(
        report,
        bytes_linked=linked,
        bytes_written=sum(size for _, size in sizes) - linked,
        tensors_rewritten=(*report.tensors_rewritten, *sorted(changes)),
        notes=notes,
    )


def task_arithmetic(base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint, weight: float) -> dict[str, Change]:
    """Return ``instruct + weight * (adapted - base)`` for every tensor of the body that adaptation changed.

    Computed in float64, so that with ``weight`` 1 an instruct model that is the base model becomes the adapted one.
    """
    changes: dict[str, Change] = {}
    for name, info in body(instruct).items():
        before, after = base.tensors[name], adapted.tensors[name]
        involved = (info, before, after)
        if weight and not same_bytes(before, after) and all(is_arithmetic(name, tensor) for tensor in involved):
            changes[name] = Difference(info, before, after, weight)
    return changes


@dataclass(frozen=True)
class Difference:
    """A tensor moved by a share of the way between two others: ``start + weight * (after - before)``."""

    start: TensorInfo
    before: TensorInfo
    after: TensorInfo
    weight: float

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop``, float64."""
        change = rows_of(self.after, start, stop) - rows_of(self.before, start, stop)
        return rows_of(self.start, start, stop) + self.weight * change
