"""The product of a token map with a table, in bounded memory: only the source rows that are used are read."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.errors import UsageError

#: Source rows that are read at once, unless a single row needs more.
MOST_SOURCE_ROWS = 8192
_AVERAGED_AT_ONCE = 8192


class RowReader(Protocol):
    """Anything that gives rows of a table as float32: ``table[ids]`` for an int64 array of ids."""

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows ``ids`` as a float32 array of shape ``(len(ids), hidden)``."""
        ...


def averages(groups: sparse.csr_array, table: RowReader) -> NDArray[np.float32]:
    """Return ``groups @ table``, float32 ``(n_groups, hidden)``; reads the table in blocks of 8,192 rows."""
    total: NDArray[np.float32] | None = None
    columns = np.unique(groups.indices).astype(np.int64)
    for start in range(0, len(columns), _AVERAGED_AT_ONCE):
        ids = columns[start : start + _AVERAGED_AT_ONCE]
        part = np.asarray(groups[:, ids] @ _read(table, ids, groups.shape[1]), np.float32)
        total = part if total is None else total + part
    return np.zeros((groups.shape[0], _hidden(table, groups.shape[1])), np.float32) if total is None else total


def product(
    weights: sparse.csr_array,
    groups: sparse.csr_array,
    table: RowReader,
    start: int,
    stop: int,
    group_rows: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Return rows ``start..stop`` of the new table, float32 ``(stop - start, hidden)``.

    Args:
        weights: CSR float32, shape ``(n_target, n_source + n_groups)``.
        groups: CSR float32, shape ``(n_groups, n_source)``.
        table: the source table, ``n_source`` rows.
        start: first row.
        stop: row after the last.
        group_rows: what `averages` gives; computed here when needed and not given.
    """
    n_groups, n_source = groups.shape
    block = weights[start:stop]
    columns, compact = np.unique(block.indices, return_inverse=True)
    here = columns < n_source
    parts = []
    if here.any():
        read = columns[here].astype(np.int64)
        if stop - start > 1 and len(read) > MOST_SOURCE_ROWS:
            # Rows of many sources would draw in the whole table. Each row's sum is its own, so halves change nothing.
            half = (start + stop) // 2
            known = averages(groups, table) if group_rows is None and n_groups else group_rows
            halves = ((start, half), (half, stop))
            return np.concatenate([product(weights, groups, table, *rows, known) for rows in halves])
        parts.append(_read(table, read, n_source))
    if not here.all():
        rows = averages(groups, table) if group_rows is None else group_rows
        parts.append(rows[columns[~here] - n_source])
    if not parts:
        return np.zeros((stop - start, _hidden(table, n_source)), np.float32)
    dense = parts[0] if len(parts) == 1 else np.concatenate(parts)
    matrix = sparse.csr_array((block.data, compact, block.indptr), shape=(stop - start, len(columns)))
    return np.asarray(matrix @ dense, np.float32)


def _hidden(table: RowReader, n_source: int) -> int:
    return int(_read(table, np.zeros(1, np.int64), n_source).shape[1])


def _read(table: RowReader, ids: NDArray[np.int64], n_source: int) -> NDArray[np.float32]:
    try:
        rows = table[ids]
        if rows.ndim == 2 and len(rows) == len(ids):
            return rows
    except (TypeError, LookupError, AttributeError, ValueError):
        pass
    raise UsageError(
        f"the table gives no rows (ids, hidden) for an array of ids up to {ids.max()}: give an array or a reader of "
        f"the {n_source} rows of the source."
    )
