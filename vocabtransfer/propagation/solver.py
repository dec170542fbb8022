r"""The linear map of Learned Embedding Propagation (arXiv 2412.21140): ``argmin_D ||X D - Y||`` in float64.

``X`` and ``Y`` are rows of the base and of the instruct model's table, or averages of such rows, one for each token that
takes part; ``D`` is ``(hidden, hidden)``. Normal equations are used, not QR: ``X^T X`` and ``X^T (Y - X)`` are summed up
in blocks of rows, which costs ``3 n d^2`` operations in matrix products and memory for a few ``d x d`` matrices however
many rows there are; a blocked QR costs twice that in slower operations. What normal equations lose is digits: a
direction in which ``X`` varies by less than a millionth of the largest cannot be told from rounding (QR: 1e-15).
Embedding tables stored in 16 bits are rounded to 2^-9 or 2^-12, so nothing they hold lies down there.

Such directions, and all those that ``X`` does not reach (fewer tokens than dimensions), are left as they are: of all the
minimisers ``D`` is the one closest to the identity, where the textbook's one of least norm would erase what adaptation
put into those directions. The ridge pulls to the identity as well. Where ``X`` has full rank there is only one minimiser
and this is it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.linalg.blas import dgemm, dsyrk

from vocabtransfer.progress import track
from vocabtransfer.propagation.tables import TableRows, blocks

# Eigenvalues of X^T X, relative to the largest, below which a direction counts as absent: (1e-6)^2.
EIGENVALUE_CUTOFF = 1e-12


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A fitted map and how well it was determined.

    Attributes:
        matrix: float64 ``(hidden, hidden)``, applied from the right.
        rows: number of rows fitted.
        rank: directions of the base table that the rows determine.
        condition: largest by smallest singular value of those rows within the rank; infinite when the rank is 0.
        distance: ``||D - I|| / ||I||`` (Frobenius).
    """

    matrix: NDArray[np.float64]
    rows: int
    rank: int
    condition: float
    distance: float


def fit(weights: sparse.csr_array, base: TableRows, instruct: TableRows, ridge: float = 0.0) -> LinearMap:
    """Fit the map that takes ``weights @ base`` to ``weights @ instruct``.

    Args:
        weights: CSR ``(rows to fit, rows of the tables)``.
        base: the table that is mapped.
        instruct: the table to hit, with as many columns.
        ridge: pull towards the identity, as a share of the mean variance a direction has in the rows; 0 is none.
    """
    hidden = base.hidden
    gram = np.zeros((hidden, hidden), order="F")
    cross = np.zeros((hidden, hidden), order="F")
    for start, stop in track(list(blocks(weights.shape[0], hidden)), "fitting"):
        here = weights[start:stop]
        x = base.mean_of(here)
        change = instruct.mean_of(here)
        change -= x
        gram = dsyrk(1.0, x.T, beta=1.0, c=gram, overwrite_c=1, lower=1)
        cross = dgemm(1.0, x.T, change.T, beta=1.0, c=cross, overwrite_c=1, trans_b=1)
        base.release()
        instruct.release()
    return solve(gram, cross, int(weights.shape[0]), ridge)


def solve(gram: NDArray[np.float64], cross: NDArray[np.float64], rows: int, ridge: float = 0.0) -> LinearMap:
    """Solve ``gram (D - I) = cross`` with the eigenvectors of ``gram``; both arrays are used up.

    Args:
        gram: ``X^T X``, float64 ``(d, d)``; only the lower triangle is read.
        cross: ``X^T (Y - X)``, float64 ``(d, d)``.
        rows: number of rows behind them, reported back.
        ridge: see `fit`.
    """
    hidden = len(gram)
    mean = float(np.trace(gram)) / hidden
    values, vectors = linalg.eigh(gram, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    rank = int((values > EIGENVALUE_CUTOFF * max(float(values[-1]), 0.0)).sum())
    if rank == 0:
        return LinearMap(np.eye(hidden), rows, 0, float("inf"), 0.0)
    values, vectors = values[hidden - rank :], vectors[:, hidden - rank :]  # they come in ascending order
    inner = vectors.T @ cross
    inner /= (values + ridge * mean)[:, None]
    matrix = vectors @ inner
    distance = float(np.linalg.norm(matrix)) / hidden**0.5
    matrix[np.diag_indices(hidden)] += 1.0
    return LinearMap(matrix, rows, rank, float(np.sqrt(values[-1] / values[0])), distance)
