"""Whether new rows can be distilled alone, and what that needs beside a run."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.pieces import PieceEncoder
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
            raise VocabTransferError(f"`teacher_layer` is {layer}: {model.name} has layers 1 to {count}.")
        if not count or not same_body(model, teacher):
            return None
        return cls(model, teacher, layer or max(count // DEFAULT_SHARE, 1), dtype, device)


def leading_rows(model: Checkpoint, teacher: Checkpoint, new_rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the rows of old tokens that the text of a new token begins with, bool (rows,).

    The untouched model expects these where the new tokens are to come. While they stay as they are, what they expected
    is taken from every other token.
    """
    wanted = np.flatnonzero(new_rows[: len(model.vocabulary)]).tolist()
    pieces = PieceEncoder(teacher.tokenizer).encode_bytes([model.vocabulary.context_bytes(i) for i in wanted])
    firsts = np.unique(pieces.ids[pieces.indptr[:-1][np.diff(pieces.indptr) > 1]])
    index, theirs = model.vocabulary.index(), teacher.vocabulary
    leading = np.zeros(len(new_rows), np.bool_)
    for first in firsts.tolist():
        own = index.get(theirs.key(first))
        if own is not None and not new_rows[own]:
            leading[own] = True
    return leading


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
