"""SAVA: an affine map from the donor's space into the source's, fitted on the tokens they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.donor import (
    READ_ROWS,
    DonorMatch,
    mapped_rows,
    match_donor,
    with_mapped_rows,
)
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, Part, TransferInputs
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.progress import step
from vocabtransfer.token_map import RowReader

#: A map fitted on fewer tokens than this says more about the tokens than about the spaces.
FEWEST_TOKENS = 20
#: Ridges that are tried, as shares of the largest variance of the donor's rows.
RIDGES = np.logspace(-10, 1, 45)


@method(
    "sava",
    "copies, then the donor's row sent through an affine map fitted on the shared tokens",
    "arXiv 2504.17025",
    Need.DONOR,
    Need.TABLES,
    separate_output=True,
)
def sava(inputs: TransferInputs) -> Initialization:
    """Send each donor row through the affine map that takes the shared tokens' donor rows to their source rows best.

    ``row(t) = D[t] W + c``, least squares with a ridge, one map a table. Special and equal tokens are copied first,
    tokens that the donor does not have fall back to their pieces; so do all with fewer than 20 shared tokens.
    """
    kept = identity(inputs)
    match = match_donor(inputs, kept)
    if len(match.shared_donor) < FEWEST_TOKENS or not len(match.new_target):
        return with_mapped_rows(inputs, kept, match, None)
    assert inputs.tables is not None, "the registry checks that methods get the tables they need"
    with step("fitting the donor's space to the source's"):
        maps = {part: fitted_map(inputs, match, part) for part in inputs.tables.parts}
    return with_mapped_rows(inputs, kept, match, mapped_rows(inputs, match, maps))


@dataclass(frozen=True, eq=False)
class AffineMap:
    """``x W + c``: ``matrix`` float64 ``(from, to)``, ``constant`` float64 ``(to,)``.

    ``ridge`` is what was added to the variances, ``explained`` the share of the variance of the fitted rows that the
    map explains, corrected for its freedom (generalised cross-validation).
    """

    matrix: NDArray[np.float64]
    constant: NDArray[np.float64]
    ridge: float
    explained: float

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 rows ``(n, from)`` to float32 ``(n, to)``."""
        mapped: NDArray[np.float32] = (rows.astype(np.float64) @ self.matrix + self.constant).astype(np.float32)
        return mapped


def fitted_map(inputs: TransferInputs, match: DonorMatch, part: Part) -> AffineMap:
    """Return the map from a table of the donor to the same table of the source."""
    assert inputs.tables is not None, "the registry checks that methods get the tables they need"
    return fit_affine(match.donor.tables.part(part), match.shared_donor, inputs.tables.part(part), match.shared_source)


def fit_affine(table: RowReader, ids: NDArray[np.int64], wanted: RowReader, wanted_ids: NDArray[np.int64]) -> AffineMap:
    """Fit ``wanted[wanted_ids] ~ table[ids] W + c`` in float64.

    The ridge is the one with the smallest error by generalised cross-validation (Golub, Heath and Wahba 1979): tokens
    are often only a few times as many as dimensions.
    """
    centre, wanted_centre = _mean(table, ids), _mean(wanted, wanted_ids)
    n = len(ids)
    square = np.zeros((len(centre), len(centre)))
    cross = np.zeros((len(centre), len(wanted_centre)))
    total = 0.0
    for start in range(0, n, READ_ROWS):
        x = table[ids[start : start + READ_ROWS]] - centre
        y = wanted[wanted_ids[start : start + READ_ROWS]] - wanted_centre
        square += x.T @ x
        cross += x.T @ y
        total += float(np.einsum("ij,ij->", y, y))
    values, directions = np.linalg.eigh(square)
    values = np.maximum(values, 0)
    turned = directions.T @ cross
    ridge, explained = _best_ridge(values, np.einsum("ij,ij->i", turned, turned), total, n)
    matrix = directions @ (turned / (values + ridge)[:, None])
    return AffineMap(matrix, wanted_centre - centre @ matrix, ridge, explained)


def _best_ridge(
    values: NDArray[np.float64], strengths: NDArray[np.float64], total: float, n: int
) -> tuple[float, float]:
    """Return the ridge with the smallest cross-validated error, and the share of ``total`` explained with it.

    ``values`` are the eigenvalues of ``X'X``, ``strengths`` the squared norms of ``X'Y`` along its eigenvectors and
    ``total`` the squared norm of ``Y``.
    """
    largest = float(values[-1])
    if largest <= 0 or total <= 0:
        return 1.0, 0.0
    ridges = RIDGES * largest
    kept = values / (values + ridges[:, None])
    fitted = strengths / (values + ridges[:, None])
    error = np.maximum(total - 2 * fitted.sum(axis=1) + (kept * fitted).sum(axis=1), 0)
    freedom = n - 1 - kept.sum(axis=1)
    # Where no freedom is left nothing can be said about the error.
    score = np.where(freedom > 0.01 * n, error / np.maximum(freedom, 1) ** 2, np.inf)
    best = int(np.argmin(score))
    return float(ridges[best]), float(np.clip(1 - score[best] * (n - 1) ** 2 / total, 0, 1))


def _mean(table: RowReader, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    total = np.zeros(0)
    for start in range(0, len(ids), READ_ROWS):
        part = table[ids[start : start + READ_ROWS]].sum(axis=0, dtype=np.float64)
        total = part if start == 0 else total + part
    return np.asarray(total / len(ids))
