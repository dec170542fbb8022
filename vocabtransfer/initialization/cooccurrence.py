"""Vectors of tokens from the tokens that stand near them: positive pointwise mutual information, factorised."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh

from vocabtransfer.initialization.token_vectors import encoded_text
from vocabtransfer.initialization.vector_kernels import window_pairs
from vocabtransfer.progress import step
from vocabtransfer.tokenization.pieces import PieceEncoder

WINDOW = 10
#: Tokens that count as context: the most frequent ones. 10,000 made no better matches between two tokenisations.
CONTEXTS = 2048
#: Contexts are weighted by this power of their frequency, so that rare ones do not stand out (Levy et al., 2015).
SMOOTHING = 0.75
DIM = 200


def cooccurrence_vectors(encoder: PieceEncoder, text: Iterable[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return vectors of a tokenizer's tokens as they are used in a text, and how often each occurs.

    Co-occurrences within 10 tokens count 1 / distance. The vectors are the leading left singular vectors of the positive
    pointwise mutual information, scaled by the roots of the singular values. Nothing is drawn at random.

    Returns:
        float32 ``(vocabulary, dim)`` with zeros for tokens that occur nowhere, and int64 ``(vocabulary,)``.
    """
    blocks = [(pieces.ids, pieces.indptr[1:]) for _, pieces in encoded_text(encoder, text)]
    counts = np.zeros(len(encoder.vocabulary), np.int64)
    for ids, _ in blocks:
        counts += np.bincount(ids, minlength=len(counts))
    with step("counting neighbouring tokens"):
        pairs = _count_pairs(blocks, counts)
    with step("factorising token contexts"):
        return _factorise(_positive_information(pairs), DIM), counts


def _count_pairs(
    blocks: list[tuple[NDArray[np.int32], NDArray[np.int64]]], counts: NDArray[np.int64]
) -> sparse.csr_array:
    """Return weighted co-occurrences, CSR float64 ``(vocabulary, contexts)``."""
    chosen = np.argsort(-counts, kind="stable")[:CONTEXTS]
    chosen = chosen[counts[chosen] > 0]
    context = np.full(len(counts), -1, np.int32)
    context[chosen] = np.arange(len(chosen), dtype=np.int32)
    total = sparse.csr_array((len(counts), len(chosen)), dtype=np.float64)
    for ids, ends in blocks:
        room = 2 * WINDOW * len(ids)
        rows, columns = np.empty(room, np.int32), np.empty(room, np.int32)
        weights = np.empty(room, np.float64)
        used = window_pairs(ids, ends, context, WINDOW, rows, columns, weights)
        entries = (weights[:used], (rows[:used], columns[:used]))
        total = total + sparse.csr_array(entries, shape=total.shape)
    return total


def _positive_information(pairs: sparse.csr_array) -> sparse.csr_array:
    """Return max(0, log(p(token, context) / (p(token) p(context)))), CSR float64."""
    entries = pairs.tocoo()
    tokens = np.asarray(pairs.sum(axis=1)).ravel()
    contexts = np.asarray(pairs.sum(axis=0)).ravel() ** SMOOTHING
    shares = contexts / max(contexts.sum(), 1e-300)
    values = np.log(entries.data / (tokens[entries.row] * shares[entries.col]))
    kept = values > 0
    return sparse.csr_array((values[kept], (entries.row[kept], entries.col[kept])), shape=pairs.shape)


def _factorise(matrix: sparse.csr_array, dim: int) -> NDArray[np.float32]:
    """Return ``U sqrt(S)`` of the leading singular triplets, float32 ``(rows, dim)``; fewer columns if the rank is."""
    size = matrix.shape[1]
    if not matrix.nnz:
        return np.zeros((matrix.shape[0], 1), np.float32)
    # There are few contexts, so their Gram matrix is small and its leading eigenvectors are the singular vectors.
    values, vectors = eigh((matrix.T @ matrix).toarray(), subset_by_index=(max(0, size - dim), size - 1))
    solid = values > values[-1] * 1e-9
    scaled: NDArray[np.float32] = (matrix @ (vectors[:, solid] / values[solid] ** 0.25)).astype(np.float32)
    return scaled
