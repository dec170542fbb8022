"""Rows that were trained after a transfer, put back into its result: it is then scored, shown and written like any other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vocabtransfer.initialization.identity import COPIED, SPECIAL
from vocabtransfer.initialization.inputs import DenseRows, Part
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.token_map import TokenMap

#: The rule of a row that was copied and has been trained since, beside new rows that its token's text begins.
MADE_ROOM = "made room"


def with_trained_rows(
    result: TransferResult, numbers: NDArray[np.int64], values: Mapping[Part, Tensor]
) -> TransferResult:
    """Return the result with other rows of some tokens.

    ``numbers`` int64 (n,) are their ids, all new ones among them; ``values`` float32 (n, hidden) by part, the head's only
    where it is separate. Nothing is added to these rows any more: no shift, no noise, no other length.
    """
    found = result.initialization
    places = np.full(result.token_map.n_target, -1, np.int64)
    places[numbers] = np.arange(len(numbers))
    trained = places >= 0

    def labelled(token_map: TokenMap) -> TokenMap:
        kept = np.isin(token_map.rule, [i for i, name in enumerate(token_map.rule_names) if name in (COPIED, SPECIAL)])
        return token_map.relabelled(trained & kept, MADE_ROOM) if (trained & kept).any() else token_map

    shift, noise = found.shift, found.noise
    initialization = dataclasses.replace(
        found,
        token_map=labelled(found.token_map),
        output_map=labelled(found.output_map) if found.output_map is not None else None,
        shift=dataclasses.replace(shift, amounts=np.where(trained, np.float32(0), shift.amounts)) if shift else None,
        noise=dataclasses.replace(noise, rows=noise.rows & ~trained) if noise else None,
        dense=_TrainedRows(places, {part: rows.numpy() for part, rows in values.items()}, found.dense),
    )
    return dataclasses.replace(result, initialization=initialization, norm="none")


@dataclass(frozen=True, eq=False)
class _TrainedRows:
    """Trained rows, and below them the dense rows that a method made."""

    places: NDArray[np.int64]
    tables: dict[Part, NDArray[np.float32]]
    below: DenseRows | None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Boolean ``(n_target,)``: the rows it makes."""
        trained: NDArray[np.bool_] = self.places >= 0
        return trained if self.below is None else trained | self.below.mask

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of tokens ``ids``, float32 ``(len(ids), hidden)``."""
        table = self.tables.get(part, self.tables["input"])
        found = np.empty((len(ids), table.shape[1]), np.float32)
        own = self.places[ids] >= 0
        found[own] = table[self.places[ids[own]]]
        if self.below is not None and not own.all():
            found[~own] = self.below.rows(part, ids[~own])
        return found
