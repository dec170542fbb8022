"""CLP-Transfer: a new token is the mean of the tokens shared with a donor, weighted by their likeness in the donor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.donor import (
    DONOR,
    READ_ROWS,
    DonorMatch,
    facts,
    mapped_rows,
    match_donor,
    needs_output,
    read_rows,
    with_mapped_rows,
)
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, Part, TransferInputs
from vocabtransfer.initialization.neighbours import sparsemax_weights, unit_rows
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.progress import step
from vocabtransfer.token_map import TokenMap

#: Rows whose weights add up to 1 but may add up to more than this in absolute value are not made: likenesses of both
#: signs nearly cancel there, and the row would be noise many times a row's length.
MOST_ABSOLUTE_WEIGHT = 10.0


@method(
    "clp",
    "copies, then the mean of all shared tokens, weighted by their cosine in the donor",
    "arXiv 2301.09626",
    Need.DONOR,
    Need.TABLES,
    separate_output=True,
)
def clp(inputs: TransferInputs) -> Initialization:
    """Average all shared tokens, each weighted by its cosine with the new token in the donor.

    ``row(t) = sum_i cos(D[t], D[d_i]) E[s_i] / sum_i cos(D[t], D[d_i])`` over all tokens ``i`` that donor and source
    share. Special and equal tokens are copied first; tokens that the donor does not have fall back to their pieces, as
    do those whose cosines nearly cancel.
    """
    kept = identity(inputs)
    match = match_donor(inputs, kept)
    if not len(match.shared_donor) or not len(match.new_target):
        return with_mapped_rows(inputs, kept, match, None)
    assert inputs.tables is not None, "the registry checks that methods get the tables they need"
    with step("averaging shared tokens"):
        means = {part: cosine_mean(inputs, match, part) for part in inputs.tables.parts}
    for part, mean in means.items():
        match = match.only(np.ones(len(match.shared_donor), np.bool_), _steady(match, part, mean))
    return with_mapped_rows(inputs, kept, match, mapped_rows(inputs, match, means))


@method(
    "clp_plus",
    "copies, then the mean of the few shared tokens most like the token in the donor",
    "arXiv 2402.10712",
    Need.DONOR,
    separate_output=True,
)
def clp_plus(inputs: TransferInputs) -> Initialization:
    """Average a few shared tokens, with the sparsemax of their cosines with the new token in the donor as weights.

    Special and equal tokens are copied first, tokens that the donor does not have fall back to their pieces. A row's
    evidence is the number of shared tokens in it.
    """
    kept, rest = identity(inputs), fallback(inputs)
    match = match_donor(inputs, kept)

    def made(part: Part) -> TokenMap:
        return kept.or_else(similar_rows(match, inputs.shape, part)).or_else(rest).with_metadata(**facts(match))

    return Initialization(made("input"), made("output") if needs_output(inputs) else None)


@dataclass(frozen=True, eq=False)
class CosineMean:
    """The mean of rows ``E[s_i]`` weighted by the cosines of a row with rows ``D[d_i]``, without any single weight.

    Sums of cosines are linear in the direction ``u`` of a row: ``sum_i cos_i E[s_i] = u (sum_i d_i' E[s_i])`` with unit
    rows ``d_i``. Attributes are float64: ``weighted`` ``(donor hidden, source hidden)`` is the sum in brackets, ``total``
    ``(donor hidden,)`` is ``sum_i d_i`` and ``square`` ``(donor hidden, donor hidden)`` is ``sum_i d_i' d_i``.
    """

    weighted: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]
    count: int

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the means that belong to donor rows, float32 ``(n, donor hidden)`` to ``(n, source hidden)``."""
        directions = _directions(rows)
        mean: NDArray[np.float32] = (directions @ self.weighted / (directions @ self.total)[:, None]).astype(np.float32)
        return mean

    def steady(self, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell for which donor rows the absolute weights add up to `MOST_ABSOLUTE_WEIGHT` at most."""
        directions = _directions(rows)
        # The sum of n absolute values is at most sqrt(n) times the root of their squares' sum.
        absolute = np.sqrt(self.count * np.einsum("ij,ij->i", directions @ self.square, directions).clip(0))
        return np.asarray((directions @ self.total * MOST_ABSOLUTE_WEIGHT >= absolute) & (absolute > 0))


def cosine_mean(inputs: TransferInputs, match: DonorMatch, part: Part) -> CosineMean:
    """Sum up a match's shared tokens for `CosineMean`, in float64, from the same table of donor and source."""
    assert inputs.tables is not None, "the registry checks that methods get the tables they need"
    donor, source = match.donor.tables.part(part), inputs.tables.part(part)
    hidden = match.donor.tables.hidden
    weighted = np.zeros((hidden, inputs.tables.hidden))
    total, square = np.zeros(hidden), np.zeros((hidden, hidden))
    for start in range(0, len(match.shared_donor), READ_ROWS):
        directions = _directions(donor[match.shared_donor[start : start + READ_ROWS]])
        weighted += directions.T @ source[match.shared_source[start : start + READ_ROWS]].astype(np.float64)
        square += directions.T @ directions
        total += directions.sum(axis=0)
    return CosineMean(weighted, total, square, len(match.shared_donor))


def similar_rows(match: DonorMatch, shape: tuple[int, int], part: Part) -> TokenMap:
    """Return the means of the shared tokens most like each new one, by the sparsemax of their cosines.

    The map's ``shape`` is that of `TransferInputs.shape`.
    """
    table, hidden = match.donor.tables.part(part), match.donor.tables.hidden
    new = unit_rows(read_rows(table, match.new_donor, hidden))
    similar = sparsemax_weights(new, unit_rows(read_rows(table, match.shared_donor, hidden))).tocoo()
    place = (match.new_target[similar.row], match.shared_source[similar.col])
    weights = sparse.csr_array((similar.data, place), shape=shape)
    return TokenMap.from_weights(weights, DONOR, np.diff(weights.indptr).astype(np.float32))


def _steady(match: DonorMatch, part: Part, mean: CosineMean) -> NDArray[np.bool_]:
    steady = np.empty(len(match.new_donor), np.bool_)
    for start in range(0, len(steady), READ_ROWS):
        rows = match.donor.tables.part(part)[match.new_donor[start : start + READ_ROWS]]
        steady[start : start + READ_ROWS] = mean.steady(rows)
    return steady


def _directions(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return rows scaled to length 1, float64."""
    exact = rows.astype(np.float64)
    directions: NDArray[np.float64] = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return directions
