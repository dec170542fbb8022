"""Which rows of one matrix are nearest to each row of another, in blocks of bounded memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.vector_kernels import largest, sparsemax
from vocabtransfer.progress import track

#: Similarities held at once: 128 MiB of float32.
CELLS = 1 << 25
ROWS_AT_ONCE = 1024
#: Widest sparsemax support that is kept whole. Vectors that tell tokens apart give some tens.
WIDEST_SUPPORT = 1024


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows scaled to length 1, float32 of the same shape; rows of zeros stay zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    scaled: NDArray[np.float32] = vectors * inverse[:, None].astype(np.float32)
    return scaled


def nearest(
    queries: NDArray[np.float32], keys: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the ``count`` keys of largest dot product (cosine, for unit rows) with each query, largest first.

    Of equal ones the first counts. Exact: every pair is looked at.

    Args:
        queries: float32 ``(n, dim)``.
        keys: float32 ``(m, dim)``.
        count: how many; all where there are fewer keys.

    Returns:
        Indices int32 and products float32, both ``(n, min(count, m))``.
    """
    count = min(count, len(keys))
    columns = np.zeros((len(queries), count), np.int32)
    found = np.zeros((len(queries), count), np.float32)
    if count:
        for start, products in _products(queries, keys, "searching nearest tokens"):
            part = slice(start, start + len(products))
            largest(products, columns[part], found[part])
    return columns, found


def softmax_weights(
    indices: NDArray[np.int32], similarities: NDArray[np.float32], temperature: float, width: int
) -> sparse.csr_array:
    """Return ``softmax(similarity / temperature)`` over each row's neighbours, CSR float32 ``(n, width)``."""
    rows, count = indices.shape
    if not count:
        return sparse.csr_array((rows, width), dtype=np.float32)
    scaled = similarities.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    pointers = np.arange(0, rows * count + 1, count)
    return sparse.csr_array((weights.astype(np.float32).ravel(), indices.ravel(), pointers), shape=(rows, width))


def sparsemax_weights(
    queries: NDArray[np.float32], keys: NDArray[np.float32], widest: int = WIDEST_SUPPORT
) -> sparse.csr_array:
    """Return the sparsemax (Martins & Astudillo, 2016) of each query's dot products with all keys.

    The result is the point of the probability simplex nearest to the products, so rows sum to 1 and most weights are
    zero. A support wider than ``widest`` is replaced by the sparsemax over the ``widest`` largest products.

    Returns:
        CSR float32 ``(n, m)``; no entries where there are no keys.
    """
    widest = min(widest, len(keys))
    parts = []
    if widest:
        for _, products in _products(queries, keys, "weighing similar tokens"):
            columns = np.empty((len(products), widest), np.int32)
            weights = np.empty((len(products), widest), np.float32)
            lengths = np.empty(len(products), np.int64)
            sparsemax(products, columns, weights, lengths)
            taken = np.arange(widest) < lengths[:, None]
            pointers = np.concatenate([[0], np.cumsum(lengths)])
            entries = (weights[taken], columns[taken], pointers)
            parts.append(sparse.csr_array(entries, shape=(len(products), len(keys))))
    if not parts:
        return sparse.csr_array((len(queries), len(keys)), dtype=np.float32)
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def spread(
    weights: sparse.csr_array, rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]
) -> sparse.csr_array:
    """Put a matrix over some rows and columns into one of the whole shape, CSR."""
    entries = weights.tocoo()
    return sparse.csr_array((entries.data, (rows[entries.row], columns[entries.col])), shape=shape)


def _products(
    queries: NDArray[np.float32], keys: NDArray[np.float32], description: str
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, dot products of a block of queries with all keys); the block is overwritten by the next."""
    rows = min(ROWS_AT_ONCE, max(1, CELLS // len(keys)), max(1, len(queries)))
    room = np.empty((rows, len(keys)), np.float32)
    for start in track(range(0, len(queries), rows), description):
        block = queries[start : start + rows]
        yield start, np.matmul(block, keys.T, out=room[: len(block)])
