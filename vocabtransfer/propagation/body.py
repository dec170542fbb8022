"""Changes of a model's body, and how they are written with its new tables.

A `Change` gives rows ``start..stop`` (first axis) of a new tensor, so that a body streams through in blocks of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import Checkpoint, TensorInfo, WriteReport, write_checkpoint
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.shards import Change, Rows
from vocabtransfer.checkpoint.tensors import load_rows, load_tensor
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.staging import settled
from vocabtransfer.propagation.checks import body, is_arithmetic, same_bytes


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

    Raises:
        VocabTransferError: the target overlaps one of ``inputs``, and everything that `write_checkpoint` refuses.
    """
    target = settled(destination.target)
    for checkpoint in inputs:
        _refuse_overlap(checkpoint, target)
    return write_checkpoint(
        source,
        target,
        tokenizer=tokenizer,
        rows=rows,
        changes=changes,
        extra_files=extra_files,
        link=destination.link,
        overwrite=destination.overwrite,
        pad_to_multiple_of=destination.pad_to_multiple_of,
    )


def _refuse_overlap(checkpoint: Checkpoint, target: Path) -> None:
    folder, wanted = checkpoint.path.resolve(), target.resolve()
    if folder == wanted or folder in wanted.parents or wanted in folder.parents:
        raise VocabTransferError(
            f"{target} and the model {checkpoint.name} in {checkpoint.path} overlap: choose another output."
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
