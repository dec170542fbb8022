"""The rows of a new vocabulary's tables, made in blocks as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.blocks import GROUP, groups, row_blocks
from vocabtransfer.checkpoint import Checkpoint, VocabTensor
from vocabtransfer.initialization import Initialization, Part, Tables, TransferInputs, find_method
from vocabtransfer.initialization.norms import Norm, rescaled, wanted_norms
from vocabtransfer.token_map import TokenMap

_SAMPLE = 16_384  # rows that the spread of a table is estimated from


class TableRows:
    """Rows of a checkpoint's table as float32, read from the file as they are asked for."""

    def __init__(self, table: torch.Tensor, *, is_head: bool = False) -> None:
        """Wrap a memory-mapped table of any float dtype, shape ``(rows, hidden)``.

        A table may be shorter than the vocabulary. Tokens past its end have the first row where it is read from (so does
        Gemma 3n with its rows for every layer), and in a head the mean row, whose logit is never the highest.
        """
        self._table, self._is_head = table, is_head
        self._mean: torch.Tensor | None = None

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows ``ids``, float32 ``(len(ids), hidden)``."""
        beyond = ids >= len(self._table)
        rows = self._table[torch.from_numpy(np.where(beyond, 0, ids))].float()
        if self._is_head and beyond.any():
            rows[torch.from_numpy(beyond)] = self._mean_row()
        result: NDArray[np.float32] = rows.numpy()
        return result

    def _mean_row(self) -> torch.Tensor:
        if self._mean is None:
            parts = (part.double().sum(dim=0) for part in self._table.split(GROUP))
            self._mean = (torch.stack(list(parts)).sum(dim=0) / len(self._table)).float()
        return self._mean


def checkpoint_tables(checkpoint: Checkpoint) -> Tables:
    """Return a checkpoint's tables for methods that look into them; nothing is read yet."""
    output = TableRows(checkpoint.output_table(), is_head=True) if checkpoint.layout.output_name else None
    return Tables(TableRows(checkpoint.input_table()), output, checkpoint.layout.hidden)


@dataclass(eq=False)
class NewTables:
    """Makes blocks of new rows from an initialisation; what blocks share is computed once."""

    source: Checkpoint
    inputs: TransferInputs
    initialization: Initialization
    norm: Norm = "none"
    _groups: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _deviations: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _norms: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def rows(self, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start..stop`` of a new tensor: float32 ``(stop - start, width)``, or ``(stop - start,)``.

        A lookup's are integers: a new token's are those of the source token that it is most like.
        """
        values = self.source.read(tensor.name)
        if tensor.part == "lookup":
            return values[torch.from_numpy(strongest(self._plain_map, start, stop))]
        token_map = self.map_of(tensor)
        is_bias = tensor.part == "output_bias"
        table = TableRows(
            values.reshape(-1, 1) if is_bias else values, is_head=tensor.part in ("output", "output_bias")
        )
        if tensor.name not in self._groups:
            self._groups[tensor.name] = token_map.group_rows(table)
        rows = token_map.apply(table, start, stop, self._groups[tensor.name])
        if is_bias:
            return torch.from_numpy(rows[:, 0])
        rows = self._with_dense(rows, tensor, table, start, stop)
        rows = self._with_noise(rows, tensor, table, start, stop)
        if self.norm != "none":
            if tensor.name not in self._norms:
                self._norms[tensor.name] = wanted_norms(self.inputs, token_map, table, self.norm)
            rows = rescaled(rows, self._norms[tensor.name][start:stop])
        shift = self.initialization.shift
        is_head = tensor.part in ("output", "shared")
        return torch.from_numpy(rows + shift.rows(start, stop) if shift is not None and is_head else rows)

    def whole(self, tensor: VocabTensor) -> torch.Tensor:
        """Return a whole new tensor, float32, made in blocks so that no more than one table is in memory."""
        count = self.inputs.shape[0]
        shape = (count,) if tensor.part == "output_bias" else (count, self.source.layout.hidden)
        table = torch.empty(shape)
        for start, rows in self.blocks(tensor):
            table[start : start + len(rows)] = rows
        return table

    def blocks(self, tensor: VocabTensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the rows of a new tensor in blocks, each with the number of its first row."""
        count = self.inputs.shape[0]
        for start, stop in row_blocks(count, 1 if tensor.part == "output_bias" else self.source.layout.hidden):
            yield start, self.rows(tensor, start, stop)

    def map_of(self, tensor: VocabTensor) -> TokenMap:
        """Return the token map that makes a tensor's rows."""
        of_head = tensor.part in ("output", "output_bias") and self.initialization.output_map is not None
        return (
            self.initialization.output_map or self.initialization.token_map
            if of_head
            else self.initialization.token_map
        )

    @cached_property
    def _plain_map(self) -> TokenMap:
        """What copied tokens and the mean of pieces make, for tables that the chosen method says nothing about."""
        return find_method("pieces")(self.inputs).token_map

    def _with_dense(
        self, rows: NDArray[np.float32], tensor: VocabTensor, table: TableRows, start: int, stop: int
    ) -> NDArray[np.float32]:
        dense = self.initialization.dense
        here = start + np.flatnonzero(dense.mask[start:stop]) if dense is not None else np.empty(0, np.int64)
        if dense is not None and len(here) and tensor.further:  # rows made for another table
            rows[here - start] = self._plain_map.apply(table, start, stop)[here - start]
        elif dense is not None and len(here):
            part: Part = "output" if tensor.part == "output" else "input"
            # A product's last bit may depend on how many rows it has, so rows are always made in the same company.
            for begin, end in groups(start, stop):
                own = np.arange(begin // GROUP * GROUP, min(begin // GROUP * GROUP + GROUP, self.inputs.shape[0]))
                own = own[dense.mask[own]]
                asked = (own >= begin) & (own < end)
                if asked.any():
                    rows[own[asked] - start] = dense.rows(part, own)[asked]
        return rows

    def _with_noise(
        self, rows: NDArray[np.float32], tensor: VocabTensor, table: TableRows, start: int, stop: int
    ) -> NDArray[np.float32]:
        noise = self.initialization.noise
        if noise is None:
            return rows
        if tensor.name not in self._deviations:
            trained = np.flatnonzero(self.inputs.trained)
            self._deviations[tensor.name] = table[trained[:: max(1, len(trained) // _SAMPLE)]].std(axis=0)
        return np.asarray(rows + noise.draw(start, stop, self._deviations[tensor.name]), np.float32)


def strongest(token_map: TokenMap, start: int, stop: int) -> NDArray[np.int64]:
    """Return, for rows ``start..stop`` of a map, the source token of the greatest weight; 0 where there is none."""
    found = np.zeros(stop - start, np.int64)
    for row in range(start, stop):
        own = [column for column, _ in token_map.row(row) if column < token_map.n_source]
        found[row - start] = own[0] if own else 0
    return found
