"""Rows of a table on disk, mapped into memory only while they are looked at.

A fit touches every row of two tables. Left to themselves, the pages of the mapping would stay in the process until both
tables are in memory; `TableRows.release` gives them back, so that the cost is that of one block.
"""

import mmap
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.checkpoint.tensors import TORCH_DTYPES, TensorInfo

# Elements of a block of rows: 64 MiB in float64, large enough for matrix products to run at full speed.
BLOCK_ELEMENTS = 1 << 23


class TableRows:
    """A table of shape ``(rows, hidden)`` in any float dtype; a bias ``(rows,)`` or ``(1, rows)`` counts as one column."""

    def __init__(self, info: TensorInfo) -> None:
        page = info.begin - info.begin % mmap.ALLOCATIONGRANULARITY
        with info.file.open("rb") as stream:
            self._view = mmap.mmap(stream.fileno(), info.end - page, access=mmap.ACCESS_COPY, offset=page)
        dtype = TORCH_DTYPES[info.dtype]
        count = info.nbytes // dtype.itemsize
        flat = torch.frombuffer(self._view, dtype=dtype, count=count, offset=info.begin - page)
        table = len(info.shape) == 2 and info.shape[0] > 1
        self._table = flat.reshape(info.shape) if table else flat.reshape(-1, 1)
        self.bits = dtype.itemsize * 8

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._table.shape[0])

    @property
    def hidden(self) -> int:
        """Number of columns."""
        return int(self._table.shape[1])

    def take(self, ids: NDArray[np.int64], dtype: torch.dtype = torch.float64) -> NDArray[np.float64]:
        """Return the rows ``ids``: ``(len(ids), hidden)``, in ``dtype`` (float64 or float32)."""
        rows: NDArray[np.float64] = self._table[torch.from_numpy(ids)].to(dtype).numpy()
        return rows

    def mean_of(self, weights: sparse.csr_array) -> NDArray[np.float64]:
        """Return ``weights @ table`` in float64, reading only the rows with a weight; weights ``(n, rows)``."""
        columns, compact = np.unique(weights.indices, return_inverse=True)
        matrix = sparse.csr_array((weights.data, compact, weights.indptr), shape=(weights.shape[0], len(columns)))
        product: NDArray[np.float64] = matrix.astype(np.float64) @ self.take(columns.astype(np.int64))
        return product

    def release(self) -> None:
        """Give the pages read so far back to the system, which may keep them in its own cache."""
        if hasattr(self._view, "madvise"):
            self._view.madvise(mmap.MADV_DONTNEED)


def blocks(count: int, hidden: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over ``count`` rows of ``hidden`` columns, `BLOCK_ELEMENTS` at a time."""
    size = max(1, BLOCK_ELEMENTS // max(1, hidden))
    for start in range(0, count, size):
        yield start, min(start + size, count)
