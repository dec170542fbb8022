"""The token map: rows of a new vocabulary written as sparse combinations of the rows of an old one.

Nearly every training-free initialiser is such a map ``M`` with ``E' = M E`` (trans-tokenization, mean of pieces, FOCUS,
WECHSEL, OMP ...), so methods produce maps, maps are composed and blended, and one streaming product applies them.
Every row remembers which rule made it and on how much evidence: that is what a person inspects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.blocks import GROUP
from vocabtransfer.errors import UsageError
from vocabtransfer.map_file import damage_said, packed, unpacked
from vocabtransfer.map_name import MAP_FILE as MAP_FILE
from vocabtransfer.map_product import RowReader as RowReader
from vocabtransfer.map_product import averages, product
from vocabtransfer.public import public
from vocabtransfer.reprs import brief

#: Beside `MAP_FILE`, the map of the head's rows, where they are made otherwise than the input's.
OUTPUT_MAP_FILE = "token_map_output.safetensors"
#: The rule of a row that nothing has been said about yet; its weights are all zero.
NONE = "none"


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Rows of a target vocabulary as weighted sums of source rows.

    Averages over thousands of rows ("the mean of all Cyrillic tokens") would make the matrix dense, so they are
    *groups*: extra columns behind the source's, each defined once as a sparse average. A target row is
    ``weights[t, :n_source] @ E + weights[t, n_source:] @ (groups @ E)``.

    Attributes:
        weights: CSR float32, shape ``(n_target, n_source + n_groups)``, columns sorted in each row.
        groups: CSR float32, shape ``(n_groups, n_source)``.
        group_names: one name a group, used in explanations.
        rule: uint8, shape ``(n_target,)``: index into `rule_names` of the rule that made the row.
        rule_names: names of the rules; the first is always ``"none"``.
        evidence: float32, shape ``(n_target,)``: the weight of the observations behind the row (e.g. aligned counts).
        metadata: free facts (method, inputs) that travel with the map; JSON values only.
    """

    weights: sparse.csr_array
    groups: sparse.csr_array
    group_names: tuple[str, ...]
    rule: NDArray[np.uint8]
    rule_names: tuple[str, ...]
    evidence: NDArray[np.float32]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(self, rows=self.n_target, from_rows=self.n_source, **self.counts_by_rule())

    # -- making ------------------------------------------------------------------------------------------------

    @classmethod
    @public
    def empty(cls, n_target: int, n_source: int) -> TokenMap:
        """Return a map that says nothing about any row."""
        if n_target < 0 or n_source < 0:
            raise UsageError(f"a map cannot have {n_target} by {n_source} rows.")
        return cls.from_weights(sparse.csr_array((n_target, n_source), dtype=np.float32), NONE)

    @classmethod
    @public
    def from_weights(cls, weights: sparse.sparray, rule: str, evidence: NDArray[np.float32] | None = None) -> TokenMap:
        """Return a map whose non-empty rows were made by ``rule``.

        Args:
            weights: sparse, shape ``(n_target, n_source)``; converted to CSR float32, explicit zeros dropped.
            rule: the name of the rule.
            evidence: float, shape ``(n_target,)``; 1 for every non-empty row when not given.
        """
        matrix = _canonical(weights)
        filled = np.diff(matrix.indptr) > 0
        names = (NONE,) if rule == NONE else (NONE, rule)
        if evidence is None:
            evidence = filled.astype(np.float32)
        return cls(
            weights=matrix,
            groups=sparse.csr_array((0, matrix.shape[1]), dtype=np.float32),
            group_names=(),
            rule=filled.astype(np.uint8) if len(names) > 1 else np.zeros(matrix.shape[0], np.uint8),
            rule_names=names,
            evidence=np.where(filled, evidence, 0).astype(np.float32),
        )

    @classmethod
    @public
    def from_pairs(
        cls,
        targets: NDArray[np.integer[Any]],
        sources: NDArray[np.integer[Any]],
        shape: tuple[int, int],
        rule: str,
    ) -> TokenMap:
        """Return the map that copies row ``sources[i]`` to row ``targets[i]``."""
        if targets.shape != sources.shape or targets.ndim != 1 or len(shape) != 2:
            raise UsageError("as many targets as sources are wanted, one-dimensional, and a shape of two numbers.")
        _check_ids(targets, shape[0], "target")
        _check_ids(sources, shape[1], "source")
        ones = np.ones(len(targets), np.float32)
        return cls.from_weights(sparse.csr_array((ones, (targets, sources)), shape=shape), rule)

    @classmethod
    @public
    def from_groups(
        cls, choice: NDArray[np.integer[Any]], groups: sparse.sparray, names: Sequence[str], rule: str
    ) -> TokenMap:
        """Return the map that gives row ``t`` the average ``groups[choice[t]]`` (none where the choice is negative)."""
        averages = _canonical(groups)
        n_source = averages.shape[1]
        _check_ids(choice[choice >= 0], averages.shape[0], "group")
        rows = np.flatnonzero(choice >= 0)
        ones = np.ones(len(rows), np.float32)
        weights = sparse.csr_array(
            (ones, (rows, n_source + choice[rows])), shape=(len(choice), n_source + averages.shape[0])
        )
        filled = (choice >= 0).astype(np.uint8)
        return cls(
            weights=_canonical(weights),
            groups=averages,
            group_names=tuple(names),
            rule=filled,
            rule_names=(NONE, rule),
            evidence=np.zeros(len(choice), np.float32),
        )

    def __post_init__(self) -> None:
        n_target = self.weights.shape[0]
        if self.weights.shape[1] != self.n_source + len(self.group_names) or self.groups.shape[0] != len(
            self.group_names
        ):
            raise UsageError("a token map's columns must be the source rows followed by one column a group")
        if len(self.rule) != n_target or len(self.evidence) != n_target:
            raise UsageError("a token map needs one rule and one evidence figure a row")
        if self.rule_names[0] != NONE:
            raise UsageError('the first rule name of a token map must be "none"')

    # -- reading -----------------------------------------------------------------------------------------------

    @property
    def n_target(self) -> int:
        """Number of rows the map makes."""
        return int(self.weights.shape[0])

    @property
    def n_source(self) -> int:
        """Number of rows of the source table."""
        return int(self.groups.shape[1])

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Boolean, shape ``(n_target,)``: rows that some rule has spoken about."""
        made: NDArray[np.bool_] = self.rule != 0
        return made

    @public
    def rule_of(self, row: int) -> str:
        """Return the name of the rule that made a row."""
        return self.rule_names[int(self.rule[row])]

    def counts_by_rule(self) -> dict[str, int]:
        """Return the number of rows made by each rule that made any, in the order of `rule_names`."""
        counts = np.bincount(self.rule, minlength=len(self.rule_names))
        return {name: int(n) for name, n in zip(self.rule_names, counts, strict=True) if n}

    @public
    def row(self, row: int) -> list[tuple[int, float]]:
        """Return ``(column, weight)`` of one row, heaviest first; columns from `n_source` on are groups."""
        start, stop = self.weights.indptr[row], self.weights.indptr[row + 1]
        pairs = zip(self.weights.indices[start:stop].tolist(), self.weights.data[start:stop].tolist(), strict=True)
        return sorted(pairs, key=lambda pair: (-abs(pair[1]), pair[0]))

    def row_sums(self) -> NDArray[np.float64]:
        """Return the sum of each row's weights, each group counted with the sum of its own; float64."""
        column_sums = np.ones(self.weights.shape[1])
        column_sums[self.n_source :] = self.groups.astype(np.float64).sum(axis=1)
        return np.asarray(self.weights.astype(np.float64) @ column_sums)

    # -- combining ---------------------------------------------------------------------------------------------

    @public
    def or_else(self, other: TokenMap) -> TokenMap:
        """Return this map with the rows that no rule has made taken from ``other``."""
        return self.where(self.filled, other)

    @public
    def where(self, keep: NDArray[np.bool_], other: TokenMap) -> TokenMap:
        """Return the map with this map's rows where ``keep`` is true and ``other``'s elsewhere."""
        self._check_one_a_row(keep)
        mine, theirs, groups, names = _shared_columns(self, other)
        chosen = keep.astype(np.float32)
        weights = sparse.diags_array(chosen).tocsr() @ mine + sparse.diags_array(1 - chosen).tocsr() @ theirs
        rule_names, translate = _merge_names(self.rule_names, other.rule_names)
        return replace(
            self,
            weights=_canonical(weights),
            groups=groups,
            group_names=names,
            rule=np.where(keep, self.rule, translate[other.rule]).astype(np.uint8),
            rule_names=rule_names,
            evidence=np.where(keep, self.evidence, other.evidence).astype(np.float32),
        )

    @public
    def blend(self, other: TokenMap, share: NDArray[np.floating[Any]] | float) -> TokenMap:
        """Return ``share * self + (1 - share) * other``, row by row.

        Rows that only one of the two maps has are taken from it whole. A blended row carries the rule of the larger
        share (this map's when equal) and this map's evidence.

        Args:
            other: a map of the same shape.
            share: weight of this map, between 0 and 1; a number or a float array of shape ``(n_target,)``.
        """
        mine, theirs, groups, names = _shared_columns(self, other)
        if np.ndim(share):
            self._check_one_a_row(np.asarray(share))
        wanted = np.broadcast_to(np.asarray(share, np.float32), (self.n_target,))
        share_here = np.where(self.filled, np.where(other.filled, wanted, 1), 0).astype(np.float32)
        weights = sparse.diags_array(share_here).tocsr() @ mine + sparse.diags_array(1 - share_here).tocsr() @ theirs
        rule_names, translate = _merge_names(self.rule_names, other.rule_names)
        from_here = share_here >= 0.5
        return replace(
            self,
            weights=_canonical(weights),
            groups=groups,
            group_names=names,
            rule=np.where(from_here, self.rule, translate[other.rule]).astype(np.uint8),
            rule_names=rule_names,
            evidence=np.where(self.filled, self.evidence, other.evidence).astype(np.float32),
        )

    @public
    def compose(self, inner: TokenMap) -> TokenMap:
        """Return the map ``x -> self(inner(x))``: this map's sources are the rows that ``inner`` makes.

        Rules and evidence are this map's: they describe the last step.
        """
        if self.n_source != inner.n_target:
            raise UsageError(
                f"cannot compose: {self.n_source} source rows here, {inner.n_target} rows made by the inner map"
            )
        direct = self.weights[:, : self.n_source] @ inner.weights
        own = self.groups @ inner.weights
        flattened = own[:, : inner.n_source] + own[:, inner.n_source :] @ inner.groups
        weights = sparse.hstack([direct, self.weights[:, self.n_source :]], format="csr")
        return replace(
            self,
            weights=_canonical(weights),
            groups=_canonical(sparse.vstack([inner.groups, flattened], format="csr")),
            group_names=inner.group_names + self.group_names,
        )

    @public
    def scaled(self, factor: NDArray[np.floating[Any]]) -> TokenMap:
        """Return the map with each row multiplied by its factor; shape ``(n_target,)``."""
        self._check_one_a_row(factor)
        return replace(self, weights=_canonical(sparse.diags_array(factor.astype(np.float32)).tocsr() @ self.weights))

    @public
    def relabelled(self, rows: NDArray[np.bool_], rule: str) -> TokenMap:
        """Return the map with another rule's name on some rows; shape ``(n_target,)``."""
        self._check_one_a_row(rows)
        names, code = _merge_names(self.rule_names, (rule,))
        return replace(self, rule=np.where(rows, code[0], self.rule).astype(np.uint8), rule_names=names)

    def with_metadata(self, **facts: Any) -> TokenMap:
        """Return the map with further metadata."""
        return replace(self, metadata={**self.metadata, **facts})

    # -- applying ----------------------------------------------------------------------------------------------

    @public
    def group_rows(self, table: RowReader) -> NDArray[np.float32]:
        """Return the groups' averages, float32 ``(n_groups, hidden)``; reads the table in blocks of 8,192 rows."""
        return averages(self.groups, table)

    @public
    def apply(
        self,
        table: RowReader,
        start: int = 0,
        stop: int | None = None,
        group_rows: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Return rows ``start..stop`` of the new table, float32 ``(stop - start, hidden)``.

        Only the source rows that these rows use are read, so a table of any size is rewritten in bounded memory.

        Args:
            table: the source table.
            start: first row.
            stop: row after the last; all rows when not given.
            group_rows: what `group_rows` gave, so that a caller who works in blocks computes it once.
        """
        stop = self.n_target if stop is None else stop
        if not 0 <= start <= stop <= self.n_target:
            raise UsageError(f"there are no rows {start} to {stop}: the map has {self.n_target} rows.")
        return product(self.weights, self.groups, table, start, stop, group_rows)

    def _check_one_a_row(self, values: NDArray[Any]) -> None:
        if values.shape != (self.n_target,):
            raise UsageError(f"one value for each of the {self.n_target} rows is wanted, not {list(values.shape)}.")

    def blocks(self, table: RowReader, size: int = GROUP) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield ``(start, rows)`` over the whole new table."""
        averages = self.group_rows(table) if self.group_names else None
        for start in range(0, self.n_target, size):
            yield start, self.apply(table, start, min(start + size, self.n_target), averages)

    # -- storing -----------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the map as the content of a safetensors file; the same map gives the same bytes."""
        facts = {
            "shape": [self.n_target, self.n_source],
            "group_names": self.group_names,
            "rule_names": self.rule_names,
            "metadata": dict(self.metadata),
        }
        return packed(
            {"weights": self.weights, "groups": self.groups}, {"rule": self.rule, "evidence": self.evidence}, facts
        )

    @public
    def save(self, path: str | Path) -> None:
        """Write the map to a file; see `to_bytes`."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    @public
    def load(cls, path: str | Path) -> TokenMap:
        """Read a map written by `save`.

        Raises:
            VocabTransferError: the file is missing, damaged or not a token map.
        """
        with damage_said(path):
            return cls(**unpacked(path))


def _check_ids(ids: NDArray[np.integer[Any]], count: int, kind: str) -> None:
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise UsageError(f"there are {count} {kind} rows, so ids go from 0 to {count - 1}.")


def _canonical(matrix: sparse.sparray) -> sparse.csr_array:
    """Return CSR float32 with sorted columns, duplicates summed and explicit zeros dropped."""
    result = sparse.csr_array(matrix, dtype=np.float32, copy=True)
    result.sum_duplicates()
    result.eliminate_zeros()
    return result


def _shared_columns(
    a: TokenMap, b: TokenMap
) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array, tuple[str, ...]]:
    """Return both weight matrices over one common set of columns, with the groups that stand behind them."""
    if (a.n_target, a.n_source) != (b.n_target, b.n_source):
        raise UsageError(f"token maps of shapes {(a.n_target, a.n_source)} and {(b.n_target, b.n_source)} do not fit")
    extra_a, extra_b = len(a.group_names), len(b.group_names)
    if a.group_names == b.group_names and (a.groups != b.groups).nnz == 0:
        return a.weights, b.weights, a.groups, a.group_names
    pad_a = sparse.csr_array((a.n_target, extra_b), dtype=np.float32)
    pad_b = sparse.csr_array((b.n_target, extra_a), dtype=np.float32)
    mine = sparse.hstack([a.weights, pad_a], format="csr")
    theirs = sparse.hstack([b.weights[:, : b.n_source], pad_b, b.weights[:, b.n_source :]], format="csr")
    groups = sparse.vstack([a.groups, b.groups], format="csr")
    return mine, theirs, groups, a.group_names + b.group_names


def _merge_names(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Return the union of two rule-name tuples and, for each name of ``b``, its index there."""
    names = list(a) + [name for name in b if name not in a]
    return tuple(names), np.array([names.index(name) for name in b], np.uint8)
