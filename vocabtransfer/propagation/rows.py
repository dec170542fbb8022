"""Where each row of the result comes from, and the rows themselves in blocks.

A row is either the adapted model's, mapped, or the instruct model's as it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.blocks import groups
from vocabtransfer.checkpoint import Checkpoint, TensorInfo, VocabTensor
from vocabtransfer.checkpoint.tensors import TORCH_DTYPES
from vocabtransfer.initialization.fallback import pieces_map
from vocabtransfer.initialization.identity import equal_tokens
from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.propagation.solver import LinearMap
from vocabtransfer.propagation.tables import TableRows, blocks
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind


@dataclass(frozen=True, eq=False)
class RowPlan:
    """What makes the rows of the result.

    Attributes:
        base: the base model.
        adapted: the adapted base model, whose tokens the result has.
        instruct: the instruct model, whose shape and dtypes the result has.
        token_map: ``T``, adapted tokens from base rows: equal tokens copied, others the mean of their pieces.
        copied: boolean, one an adapted token: tokens that the base model has too.
        taken: int64, one a token of the result: the instruct model's row that is taken as it is, or -1.
        maps: the fitted map of each table by part ("input", "output" or "shared"); empty for the method swap.
    """

    base: Checkpoint
    adapted: Checkpoint
    instruct: Checkpoint
    token_map: TokenMap
    copied: NDArray[np.bool_]
    taken: NDArray[np.int64]
    maps: Mapping[str, LinearMap]

    def info(self, checkpoint: Checkpoint, part: str) -> TensorInfo:
        """Return where the tensor that plays ``part`` lies in one of the three models."""
        return checkpoint.tensors[next(own.name for own in checkpoint.layout.tensors if own.part == part)]

    @property
    def tables(self) -> list[VocabTensor]:
        """The tables of the result that get a map of their own: the first tensor of each part, biases left out."""
        first: dict[str, VocabTensor] = {}
        for tensor in self.instruct.layout.tensors:
            first.setdefault(tensor.part, tensor)
        return [tensor for part, tensor in first.items() if part != "output_bias"]

    def new_table(self, tensor: VocabTensor) -> "NewTable":
        """Return the rows of a new table or bias."""
        return NewTable(self, tensor)


class NewTable:
    """The rows of one table (or bias) of the result, computed as they are asked for."""

    def __init__(self, plan: RowPlan, tensor: VocabTensor) -> None:
        self._taken = plan.taken
        self._adapted = TableRows(plan.info(plan.adapted, tensor.part))
        self._instruct = TableRows(plan.instruct.tensors[tensor.name])
        base = TableRows(plan.info(plan.base, tensor.part))
        narrow = all(table.bits == 16 for table in (self._adapted, self._instruct, base))
        self._dtype = torch.float32 if narrow else torch.float64
        self._is_bias = tensor.part == "output_bias"
        found = plan.maps.get(tensor.part)
        # A product with a 16-bit table rounds to 2^-9 in the end: float32 (2^-24) is enough, and twice as fast.
        self._matrix: NDArray[np.float64] | None = None
        if found is not None:
            self._matrix = found.matrix.astype(np.float32) if narrow else found.matrix
        self._moved: NDArray[np.float64] | None = None
        if self._is_bias and plan.maps:
            weights = mean_weights(plan.token_map)
            self._moved = self._instruct.mean_of(weights) - base.mean_of(weights)
        self._mean: NDArray[np.float64] | None = None

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop``: ``(stop - start, hidden)``, for a bias ``(stop - start,)``; float32 or float64."""
        taken = self._taken[start:stop]
        mapped, kept = np.flatnonzero(taken < 0), np.flatnonzero(taken >= 0)
        out = np.empty(
            (stop - start, self._instruct.hidden), np.float32 if self._dtype == torch.float32 else np.float64
        )
        for begin, end in groups(start, stop):  # a product's last bit may depend on how many rows it has
            own = mapped[(mapped >= begin - start) & (mapped < end - start)]
            if len(own):
                out[own] = self.mapped(own + start)
        out[kept] = self._instruct.take(taken[kept], self._dtype)
        self._adapted.release()
        self._instruct.release()
        return torch.from_numpy(out[:, 0] if self._is_bias else out)

    def adapted(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the adapted model's rows, ``(len(ids), hidden)``, the mean row for tokens without one."""
        inside = ids < self._adapted.rows
        rows = self._adapted.take(np.where(inside, ids, 0), self._dtype)
        if not inside.all():
            rows[~inside] = self._mean_row()
        return rows

    def mapped(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the adapted model's rows after the map, ``(len(ids), hidden)``."""
        rows = self.adapted(ids)
        if self._matrix is not None:
            rows = rows @ self._matrix
        if self._moved is not None:
            inside = ids < len(self._moved)
            rows[inside] += self._moved[ids[inside]]
        return rows

    def instruct(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the instruct model's own rows, ``(len(ids), hidden)``."""
        return self._instruct.take(ids, self._dtype)

    def _mean_row(self) -> NDArray[np.float64]:
        """Return the mean of the adapted table: for tokens past its end, such as the one Gemma's text models have."""
        if self._mean is None:
            total = np.zeros(self._adapted.hidden)
            for start, stop in blocks(self._adapted.rows, self._adapted.hidden):
                total += self._adapted.take(np.arange(start, stop)).sum(axis=0)
            self._mean = total / self._adapted.rows
        return self._mean


def base_pieces(base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint) -> tuple[TokenMap, TokenMap]:
    """Return ``T`` for ordinary tokens (equal tokens copied, others the mean of their pieces), and the copies alone.

    Rows that the base or the instruct model never trained take part in nothing.
    """
    trained = base.trained_rows()
    both = min(len(trained), instruct.layout.rows)
    trained[:both] &= instruct.trained_rows()[:both]
    trained[both:] = False
    inputs = TransferInputs(PieceEncoder(base.tokenizer, base.vocabulary), PieceEncoder(adapted.tokenizer), trained)
    copies = equal_tokens(inputs)
    return copies.or_else(pieces_map(inputs)), copies


def mean_weights(token_map: TokenMap) -> sparse.csr_array:
    """Return the map's weights in float64, every row that has any summing to 1 to the last digit."""
    weights = token_map.weights.astype(np.float64)
    sums = np.asarray(weights.sum(axis=1)).ravel()
    return sparse.csr_array(sparse.diags_array(np.divide(1, sums, out=np.zeros_like(sums), where=sums != 0)) @ weights)


def changed_specials(base: Checkpoint, instruct: Checkpoint) -> NDArray[np.bool_]:
    """Tell which control tokens the instruct model has rows of its own for, boolean, one an id of its vocabulary.

    True for those whose rows differ from the base model's in either table and for those that the base model lacks.
    """
    ours, theirs = base.vocabulary, instruct.vocabulary
    places = {ours.strings[i]: i for i in np.flatnonzero(ours.kinds != Kind.HOLE).tolist()}
    special = np.flatnonzero(theirs.kinds == Kind.SPECIAL)
    before = np.array([places.get(theirs.strings[i], -1) for i in special.tolist()], np.int64)
    changed = np.zeros(len(theirs), np.bool_)
    changed[special[before < 0]] = True
    special, before = special[before >= 0], before[before >= 0]
    for ours_info, theirs_info in _table_pairs(base, instruct):
        dtype = _common(TORCH_DTYPES[ours_info.dtype], TORCH_DTYPES[theirs_info.dtype])
        rows = torch.from_numpy(TableRows(theirs_info).take(special)).to(dtype)
        base_rows = torch.from_numpy(TableRows(ours_info).take(before)).to(dtype)
        changed[special[(rows != base_rows).any(dim=1).numpy()]] = True
    return changed


def _table_pairs(base: Checkpoint, instruct: Checkpoint) -> Iterator[tuple[TensorInfo, TensorInfo]]:
    for tensor in instruct.layout.tensors:
        other = next(own.name for own in base.layout.tensors if own.part == tensor.part)
        yield base.tensors[other], instruct.tensors[tensor.name]


def _common(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """Return the coarser of two dtypes: a table saved again in fewer bits was not changed by that."""
    order = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    return next(dtype for dtype in order if dtype in (first, second))
