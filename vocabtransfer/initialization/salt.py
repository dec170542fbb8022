"""SALT: an affine map of its own for every new token, fitted on the shared tokens that are most like it in the donor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.donor import DONOR, DonorMatch, facts, match_donor, needs_output, read_rows
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, Part, TransferInputs
from vocabtransfer.initialization.neighbours import nearest, unit_rows
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.sava import FEWEST_TOKENS
from vocabtransfer.progress import step, track
from vocabtransfer.token_map import RowReader, TokenMap

#: The shared tokens that a map is fitted on.
NEIGHBOURS = 128
#: Ridges that are tried, as shares of the mean squared distance of the neighbours from their middle.
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
#: The ridge is chosen on so many shared tokens, each made from others.
_TESTED = 512
_AT_A_TIME = 256


@method(
    "salt",
    "copies, then the donor's row sent through an affine map fitted on the shared tokens most like it",
    "arXiv 2505.10945",
    Need.DONOR,
    Need.TABLES,
    separate_output=True,
)
def salt(inputs: TransferInputs) -> Initialization:
    """Send each donor row through a map fitted on the 128 shared tokens of largest cosine with it in the donor.

    The map is affine, least squares with a ridge. They are fewer tokens than dimensions, so what the map makes is a
    combination of their source rows whose weights add up to one, and that is what the token map holds. One ridge serves
    all tokens: it rebuilds shared tokens best out of other shared ones. Special and equal tokens are copied first, tokens
    that the donor does not have fall back to their pieces; so do all with fewer than 20 shared tokens.
    """
    kept, rest = identity(inputs), fallback(inputs)
    match = match_donor(inputs, kept)

    def made(part: Part) -> TokenMap:
        regressed = regressed_rows(inputs, match, part)
        return kept.or_else(regressed).or_else(rest).with_metadata(**facts(match))

    if len(match.shared_donor) < FEWEST_TOKENS or not len(match.new_target):
        return Initialization(kept.or_else(rest).with_metadata(**facts(match)))
    with step("fitting the donor's space to the source's"):
        return Initialization(made("input"), made("output") if needs_output(inputs) else None)


def regressed_rows(inputs: TransferInputs, match: DonorMatch, part: Part) -> TokenMap:
    """Return the map of a match's new tokens; a row's evidence is the number of shared tokens in it."""
    assert inputs.tables is not None, "the registry checks that methods get the tables they need"
    tables = match.donor.tables
    table, hidden = tables.part(part), tables.hidden
    shared = read_rows(table, match.shared_donor, hidden)
    ridge = best_ridge(shared, inputs.tables.part(part), match.shared_source)
    columns, weights = local_weights(read_rows(table, match.new_donor, hidden), shared, ridge)
    row = np.repeat(match.new_target, columns.shape[1])
    place = (row, match.shared_source[columns.ravel()])
    found = sparse.csr_array((weights.ravel(), place), shape=inputs.shape)
    evidence = np.zeros(inputs.shape[0], np.float32)
    evidence[match.new_target] = columns.shape[1]
    return TokenMap.from_weights(found, DONOR, evidence)


def best_ridge(shared: NDArray[np.float32], source: RowReader, source_ids: NDArray[np.int64]) -> float:
    """Return the ridge that rebuilds some shared tokens best, each left out of what its map is fitted on.

    ``shared`` float32 ``(n, donor hidden)`` are the donor's rows, ``source_ids`` int64 ``(n,)`` the source's of the same.
    """
    tested = np.unique(np.linspace(0, len(shared) - 1, _TESTED).astype(np.int64))
    others = np.setdiff1d(np.arange(len(shared)), tested)
    if len(others) < FEWEST_TOKENS:
        return 1.0
    wanted = source[source_ids[tested]]
    neighbours, _ = nearest(unit_rows(shared[tested]), unit_rows(shared[others]), NEIGHBOURS)
    errors = []
    for ridge in RIDGES:
        weights = _weights(shared[tested], shared[others], neighbours, ridge)
        made = np.stack(
            [w @ source[source_ids[others[near]]] for w, near in zip(weights, neighbours.astype(np.int64), strict=True)]
        )
        errors.append(float(((made - wanted) ** 2).sum(dtype=np.float64)))
    return RIDGES[int(np.argmin(errors))]


def local_weights(
    rows: NDArray[np.float32], shared: NDArray[np.float32], ridge: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which shared tokens each row is made of and their weights, int64 and float32, both ``(rows, neighbours)``."""
    columns, _ = nearest(unit_rows(rows), unit_rows(shared), NEIGHBOURS)
    return columns.astype(np.int64), _weights(rows, shared, columns, ridge)


def _weights(
    rows: NDArray[np.float32], shared: NDArray[np.float32], columns: NDArray[np.int32], ridge: float
) -> NDArray[np.float32]:
    """Return the weights by which local maps combine what their neighbours have in the source.

    With neighbours ``X`` (k, d) of mean ``m``, ``C = X - m`` and a row ``x``: the affine map fitted on ``(X, Y)`` with the
    ridge ``r`` takes ``x`` to ``mean(Y) + (x - m) C' (C C' + r I)^-1 (Y - mean(Y))``.
    """
    found = np.empty(columns.shape, np.float32)
    count = columns.shape[1]
    for start in track(range(0, len(rows), _AT_A_TIME), "local maps"):
        part = slice(start, start + _AT_A_TIME)
        near = shared[columns[part]]
        middle = near.mean(axis=1, keepdims=True)
        centred = near - middle
        gram = centred @ centred.transpose(0, 2, 1)
        spread = np.trace(gram, axis1=1, axis2=2) / count
        gram[:, np.arange(count), np.arange(count)] += np.maximum(ridge * spread, 1e-12)[:, None]
        asked = centred @ (rows[part, None] - middle).transpose(0, 2, 1)
        solved = np.linalg.solve(gram.astype(np.float64), asked.astype(np.float64))[:, :, 0]
        found[part] = 1 / count + solved - solved.mean(axis=1, keepdims=True)
    return found
