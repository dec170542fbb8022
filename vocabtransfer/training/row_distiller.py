"""Whether new rows can be distilled alone, and what that needs beside a run."""

from dataclasses import dataclass

import torch

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.training.early_layers import DEFAULT_SHARE, layer_count

_COMPARED = 1024


@dataclass(frozen=True, eq=False)
class RowDistiller:
    """What distillation of rows needs beside a run: the model, the untouched model, and the early layer."""

    model: Checkpoint
    teacher: Checkpoint
    layer: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def find(
        cls, model: Checkpoint, teacher: Checkpoint, layer: int | None, dtype: torch.dtype, device: torch.device
    ) -> "RowDistiller | None":
        """Return it where both checkpoints have one body of countable layers, else None.

        Raises `VocabTransferError` for a layer that the body does not have.
        """
        count = layer_count(model)
        if layer is not None and not 1 <= layer <= max(count, 1):
            raise VocabTransferError(f"--teacher-layer is {layer}: {model.name} has layers 1 to {count}.")
        if not count or not same_body(model, teacher):
            return None
        return cls(model, teacher, layer or max(count // DEFAULT_SHARE, 1), dtype, device)


def same_body(model: Checkpoint, teacher: Checkpoint) -> bool:
    """Tell whether two checkpoints differ in nothing but tables: names, shapes, and the ends of every tensor."""
    tables = [{tensor.name for tensor in each.layout.tensors} for each in (model, teacher)]
    ours, theirs = (set(each.tensors) - names for each, names in zip((model, teacher), tables, strict=True))
    return ours == theirs and all(_same(model, teacher, name) for name in sorted(ours))


def _same(model: Checkpoint, teacher: Checkpoint, name: str) -> bool:
    if model.tensors[name].shape != teacher.tensors[name].shape:
        return False
    ours, theirs = (each.read(name).reshape(-1) for each in (model, teacher))
    return all(torch.equal(ours[part], theirs[part]) for part in (slice(_COMPARED), slice(-_COMPARED, None)))
