"""What a propagation did, in figures: residuals of the fit and norms of rows, for each table and group of rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.checkpoint import VocabTensor
from vocabtransfer.propagation.rows import RowPlan, mean_weights
from vocabtransfer.propagation.tables import TableRows, blocks

# Rows of a group that are measured, spread evenly over its ids; more would not change the figures' first two digits.
MEASURED = 1024
OVERLAP, NO_PIECES, TAKEN, APPENDED = "overlap", "no pieces", "taken from the instruct model", "appended"


def group_rows(plan: RowPlan) -> dict[str, NDArray[np.int64]]:
    """Return the ids of the result's tokens by where their rows come from; empty groups are left out.

    ``overlap`` are tokens that the base model has too, ``new, 2 pieces`` and its like those that it spells in so many
    (different) tokens; ``taken`` and ``appended`` rows are the instruct model's own.
    """
    size = len(plan.copied)
    pieces = np.zeros(len(plan.taken), np.int64)
    pieces[:size] = np.diff(plan.token_map.weights.indptr)
    copied = np.zeros(len(plan.taken), np.bool_)
    copied[:size] = plan.copied
    ids = np.arange(len(plan.taken))
    mapped = plan.taken < 0
    groups = {OVERLAP: mapped & copied}
    for count in (1, 2, 3):
        groups[f"new, {count} piece{'s' * (count > 1)}"] = mapped & ~copied & (pieces == count)
    groups["new, 4 pieces or more"] = mapped & ~copied & (pieces > 3)
    groups[NO_PIECES] = mapped & (pieces == 0)
    groups[TAKEN] = ~mapped & (ids < size)
    groups[APPENDED] = ~mapped & (ids >= size)
    return {name: np.flatnonzero(members) for name, members in groups.items() if members.any()}


def table_facts(plan: RowPlan, tensor: VocabTensor, groups: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    """Measure one table: the fit as a whole, then each group of rows.

    Residuals are relative, ``||X D - Y|| / ||Y||`` over the rows of a group with ``D = I`` (before) and the fitted map
    (after); norms are medians. Of large groups, `MEASURED` rows are looked at.
    """
    found = plan.maps.get(tensor.part)
    facts: dict[str, Any] = {"hidden": plan.instruct.layout.hidden}
    if found is not None:
        facts |= {
            "rows_fitted": found.rows,
            "rank": found.rank,
            "condition": rounded(found.condition),
            "distance_from_identity": rounded(found.distance),
        }
    measure = _Measure(plan, tensor)
    figures = {name: measure.group(ids) for name, ids in groups.items()}
    total = sum((own.squares * (len(groups[name]) / own.rows) for name, own in figures.items()), start=np.zeros(3))
    facts |= _residuals(total)
    facts["groups"] = {name: {"rows": len(groups[name]), **own.facts()} for name, own in figures.items()}
    return facts


@dataclass
class _Figures:
    """What was seen of the rows of a group: sums of squares (before, after, of ``Y``), norms, cosines."""

    rows: int
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    before: list[NDArray[np.float64]] = field(default_factory=list)
    after: list[NDArray[np.float64]] = field(default_factory=list)
    cosines: list[NDArray[np.float64]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return the figures that the group has."""
        facts: dict[str, Any] = _residuals(self.squares)
        if self.before:
            facts["norm_before"] = rounded(float(np.median(np.concatenate(self.before))))
        facts["norm_after"] = rounded(float(np.median(np.concatenate(self.after))))
        if self.cosines:
            facts["cosine"] = rounded(float(np.concatenate(self.cosines).mean()))
        return facts


class _Measure:
    """Measures groups of rows of one table."""

    def __init__(self, plan: RowPlan, tensor: VocabTensor) -> None:
        self._taken = plan.taken
        self._table = plan.new_table(tensor)
        self._base = TableRows(plan.info(plan.base, tensor.part))
        self._instruct = TableRows(plan.info(plan.instruct, tensor.part))
        found = plan.maps.get(tensor.part)
        self._matrix = found.matrix if found is not None else None
        self._weights = mean_weights(plan.token_map)

    def group(self, ids: NDArray[np.int64]) -> _Figures:
        """Measure the rows of a group, which are all mapped or all the instruct model's, ids in ascending order."""
        chosen = ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), MEASURED)).astype(np.int64))]
        figures = _Figures(len(chosen))
        mapped = self._taken[chosen[0]] < 0
        for start, stop in blocks(len(chosen), self._instruct.hidden):
            here = chosen[start:stop]
            after = self._table.mapped(here) if mapped else self._table.instruct(self._taken[here])
            figures.after.append(np.linalg.norm(after, axis=1))
            if here[-1] < self._weights.shape[0]:
                self._compare(here, after, figures)
                if mapped:
                    figures.squares += self._squares(here)
            self._base.release()
            self._instruct.release()
        return figures

    def _compare(self, ids: NDArray[np.int64], after: NDArray[np.float64], figures: _Figures) -> None:
        before = self._table.adapted(ids)
        norms = np.linalg.norm(before, axis=1)
        lengths = norms * figures.after[-1]
        dots = np.einsum("ij,ij->i", before, after)
        figures.before.append(norms)
        figures.cosines.append(np.divide(dots, lengths, out=np.zeros_like(lengths), where=lengths > 0))

    def _squares(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        here = self._weights[ids]
        if not here.nnz:
            return np.zeros(3)
        x, y = self._base.mean_of(here), self._instruct.mean_of(here)
        hit = x if self._matrix is None else x @ self._matrix
        return np.array([((x - y) ** 2).sum(), ((hit - y) ** 2).sum(), (y**2).sum()])


def _residuals(squares: NDArray[np.float64]) -> dict[str, float | None]:
    if squares[2] <= 0:
        return {}
    before, after = np.sqrt(squares[:2] / squares[2]).tolist()
    return {"residual_before": rounded(before), "residual_after": rounded(after)}


def rounded(value: float) -> float | None:
    """Return a figure with six digits; None for what is not finite, which JSON cannot say."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
