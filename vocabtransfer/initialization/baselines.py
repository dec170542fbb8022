"""The baselines: one mean row for all, noise, zeros, and the mean with a little of the table's own spread."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.fallback import overall_mean
from vocabtransfer.initialization.identity import fixed_tokens, identity
from vocabtransfer.initialization.inputs import NOISE_BLOCK, Initialization, Noise, Part, Tables, TransferInputs
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.token_map import RowReader, TokenMap

ZERO, DRAWN = "zero", "drawn"
#: How much of the table's covariance the Hugging Face default adds to the mean.
HEWITT_SHARE = 1e-9
_BLOCK = 8192


@method("mean", "copies of special tokens, then one mean row for all", "baseline")
def mean(inputs: TransferInputs) -> Initialization:
    """Copy special and byte tokens; give every other the mean of the source's trained rows."""
    return Initialization(fixed_tokens(inputs).or_else(overall_mean(inputs)))


@method("random", "copies, then noise with the mean and spread of the source's rows", "baseline")
def random(inputs: TransferInputs) -> Initialization:
    """Copy special and equal tokens; draw every other from N(mean, deviation) a dimension."""
    kept = identity(inputs)
    token_map = kept.or_else(overall_mean(inputs))
    return Initialization(token_map, noise=Noise(~kept.filled, 1.0, inputs.seed))


@method("zero", "copies, then rows of zeros", "baseline")
def zero(inputs: TransferInputs) -> Initialization:
    """Copy special and equal tokens; every other row is zero."""
    nothing = sparse.csr_array((1, inputs.shape[1]), dtype=np.float32)
    zeros = TokenMap.from_groups(np.zeros(inputs.shape[0], np.int64), nothing, ["zero"], ZERO)
    return Initialization(identity(inputs).or_else(zeros))


@method("hewitt", "copies, then the mean with a trace of the table's covariance", "Hewitt 2021", Need.TABLES)
def hewitt(inputs: TransferInputs) -> Initialization:
    """Draw every row that is no copy from N(mean, 1e-9 covariance), as transformers does when it grows a table."""
    kept = identity(inputs)
    token_map = kept.or_else(overall_mean(inputs).relabelled(np.ones(inputs.shape[0], np.bool_), DRAWN))
    assert inputs.tables is not None, "the registry checks that methods get the tables they need"
    return Initialization(token_map, dense=_Drawn(inputs.tables, inputs.trained, ~kept.filled, inputs.seed))


@dataclass(eq=False)
class _Drawn:
    """Rows drawn around a table's mean; a row depends on the seed and its id alone."""

    tables: Tables
    trained: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    seed: int

    def __post_init__(self) -> None:
        self._moments: dict[Part, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of tokens ``ids``, float32 ``(len(ids), hidden)``."""
        if part not in self._moments:
            self._moments[part] = _moments(self.tables.part(part), np.flatnonzero(self.trained))
        centre, factor = self._moments[part]
        result = np.empty((len(ids), len(centre)), np.float32)
        for block in np.unique(ids // NOISE_BLOCK).tolist():
            here = ids // NOISE_BLOCK == block
            generator = np.random.default_rng([self.seed, block])
            noise = generator.standard_normal((NOISE_BLOCK, len(centre)), np.float32)[ids[here] % NOISE_BLOCK]
            result[here] = centre + noise @ factor
        return result


def _moments(table: RowReader, ids: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (hidden,) and a factor F (hidden, hidden) with F' F = 1e-9 covariance, float64."""
    total, products = np.zeros(0), np.zeros((0, 0))
    for start in range(0, len(ids), _BLOCK):
        rows = table[ids[start : start + _BLOCK]].astype(np.float64)
        total = rows.sum(axis=0) if start == 0 else total + rows.sum(axis=0)
        products = rows.T @ rows if start == 0 else products + rows.T @ rows
    centre = total / len(ids)
    values, vectors = np.linalg.eigh(HEWITT_SHARE * (products / len(ids) - np.outer(centre, centre)))
    return centre, np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
