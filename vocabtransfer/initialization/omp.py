"""Orthogonal matching pursuit: a donor's row as a sparse combination of tokens that donor and source share."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from vocabtransfer.initialization.donor import DONOR, DonorMatch, facts, match_donor, needs_output, read_rows
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, Part, TransferInputs
from vocabtransfer.initialization.omp_gram import pursue
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.token_map import TokenMap

#: Most shared tokens that one row is rebuilt from, as in the paper.
SHARED_TOKENS = 64


@method(
    "omp",
    "copies, then the donor's row rebuilt from the shared tokens that explain it best",
    "arXiv 2506.06607",
    Need.DONOR,
    separate_output=True,
)
def omp(inputs: TransferInputs) -> Initialization:
    """Rebuild each donor row from at most 64 rows of tokens that donor and source share; weights move to the source.

    ``row(t) = sum_i x_i E[s_i]`` where ``D[t] ~ sum_i x_i D[d_i]`` by orthogonal matching pursuit, ``d_i`` and ``s_i``
    the rows of one shared token in the donor and in the source. Special and equal tokens are copied first, tokens that
    the donor does not have fall back to their pieces. Where the donor's head has rows of its own they are rebuilt by
    themselves, for the head of an untied source. A row's evidence is the explained share of its squared norm.
    """
    kept, rest = identity(inputs), fallback(inputs)
    match = match_donor(inputs, kept)

    def made(part: Part) -> TokenMap:
        return kept.or_else(rebuilt_rows(match, inputs.shape, part)).or_else(rest).with_metadata(**facts(match))

    return Initialization(made("input"), made("output") if needs_output(inputs) else None)


def rebuilt_rows(match: DonorMatch, shape: tuple[int, int], part: Part, k: int = SHARED_TOKENS) -> TokenMap:
    """Return the combinations of at most ``k`` shared tokens that rebuild the donor's rows of the new ones best.

    The map's ``shape`` is that of `TransferInputs.shape`; its evidence is the explained share of the squared norm.
    """
    tables = match.donor.tables
    table = tables.part(part)
    found = pursue(read_rows(table, match.shared_donor, tables.hidden), table, match.new_donor, k)
    row, place = np.nonzero(found.support >= 0)
    columns = match.shared_source[found.support[row, place]]
    weights = found.coefficients[row, place].astype(np.float32)
    evidence = np.zeros(shape[0], np.float32)
    evidence[match.new_target] = found.explained
    return TokenMap.from_weights(
        sparse.csr_array((weights, (match.new_target[row], columns)), shape=shape), DONOR, evidence
    )
