"""Rows of an extended or swapped vocabulary that are to stay what they were, whatever a method makes of the others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.identity import COPIED, SPECIAL
from vocabtransfer.initialization.inputs import DenseRows, Part
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.token_map import TokenMap


def with_kept_rows(result: TransferResult, kept: NDArray[np.int64]) -> TransferResult:
    """Return the result with the rows of all kept tokens exactly as they were: untrained ones too, and uncalibrated.

    ``kept`` has the old id of every new id, -1 for new tokens, int64 (tokens,): see `Reshaped`.
    """
    found = result.initialization
    rows = np.full(result.token_map.n_target, -1, np.int64)
    rows[: len(kept)] = kept[: len(rows)]
    rows[rows >= result.token_map.n_source] = -1

    def copied(token_map: TokenMap) -> TokenMap:
        special = np.array(token_map.rule_names)[token_map.rule] == SPECIAL
        here = np.flatnonzero((rows >= 0) & ~special)
        shape = (token_map.n_target, token_map.n_source)
        return TokenMap.from_pairs(here, rows[here], shape, COPIED).or_else(token_map)

    free = rows < 0
    shift, noise, dense = found.shift, found.noise, found.dense
    initialization = dataclasses.replace(
        found,
        token_map=copied(found.token_map),
        output_map=copied(found.output_map) if found.output_map is not None else None,
        shift=dataclasses.replace(shift, amounts=np.where(free, shift.amounts, np.float32(0))) if shift else None,
        noise=dataclasses.replace(noise, rows=noise.rows & free) if noise else None,
        dense=_DenseWhereFree(dense, free) if dense else None,
    )
    return dataclasses.replace(result, initialization=initialization)


@dataclass(frozen=True, eq=False)
class _DenseWhereFree:
    """Dense rows without those of kept tokens."""

    whole: DenseRows
    free: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Boolean ``(n_target,)``: the rows it makes."""
        return self.whole.mask & self.free

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the new rows of tokens ``ids``, float32 ``(len(ids), hidden)``."""
        return self.whole.rows(part, ids)
