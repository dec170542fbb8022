"""A donor's tokens beside the source's and the target's: what can be learnt from, and what is to be made.

A *donor* is another model whose rows for the target's tokens are good, in a space of its own. Tokens that it shares
with the source are the bridge between the two spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.inputs import DenseRows, Donor, Initialization, Part, Tables, TransferInputs
from vocabtransfer.token_map import RowReader, TokenMap
from vocabtransfer.vocabulary import Kind, Vocabulary

#: The rule of rows made with a donor's help.
DONOR = "donor"
READ_ROWS = 4096


@dataclass(frozen=True, eq=False)
class DonorMatch:
    """Which rows of a donor belong to which tokens; all arrays int64.

    ``shared_donor`` and ``shared_source`` ``(n_shared,)`` are the rows of tokens that stand for the same bytes in both
    models and were trained in both, in the order of those bytes, so that no result depends on how a vocabulary is
    numbered. ``new_target`` and ``new_donor`` ``(n_new,)`` are the tokens to make and the donor's row of each.
    """

    donor: Donor
    shared_donor: NDArray[np.int64]
    shared_source: NDArray[np.int64]
    new_target: NDArray[np.int64]
    new_donor: NDArray[np.int64]

    def only(self, shared: NDArray[np.bool_], new: NDArray[np.bool_]) -> DonorMatch:
        """Return the match with some of its shared and some of its new tokens."""
        return replace(
            self,
            shared_donor=self.shared_donor[shared],
            shared_source=self.shared_source[shared],
            new_target=self.new_target[new],
            new_donor=self.new_donor[new],
        )


def match_donor(inputs: TransferInputs, done: TokenMap) -> DonorMatch:
    """Match a donor's tokens with the source's, and with those of the target that ``done`` has no row for.

    Ordinary tokens are matched by their bytes and place in a word, special tokens only by name. Rows that were not
    trained, are all zero or hold something that is not a number take no part, on either side.
    """
    donor = inputs.donor
    assert donor is not None, "the registry checks that methods get the donor they need"
    ours = donor.vocabulary.counterparts(inputs.source_vocabulary)
    both = sorted(np.flatnonzero(ours >= 0).tolist(), key=lambda i: (donor.vocabulary.key(i), ours[i]))
    shared_donor = _ids(both)
    shared_source = ours[shared_donor]
    new_target, new_donor = _new_tokens(inputs.target_vocabulary, donor.vocabulary, done)
    match = DonorMatch(donor, shared_donor, shared_source, new_target, new_donor)
    match = match.only(
        _chosen(donor.trained, shared_donor) & _chosen(inputs.trained, shared_source),
        _chosen(donor.trained, new_donor),
    )
    shared = _usable(donor.tables, match.shared_donor)
    if inputs.tables is not None:
        shared &= _usable(inputs.tables, match.shared_source)
    return match.only(shared, _usable(donor.tables, match.new_donor))


def read_rows(table: RowReader, ids: NDArray[np.int64], hidden: int) -> NDArray[np.float32]:
    """Return rows ``ids`` as one float32 array ``(len(ids), hidden)``, read in blocks."""
    rows = np.empty((len(ids), hidden), np.float32)
    for start in range(0, len(ids), READ_ROWS):
        rows[start : start + READ_ROWS] = table[ids[start : start + READ_ROWS]]
    return rows


def needs_output(inputs: TransferInputs) -> bool:
    """Tell whether the head's rows are to be made by themselves: the source's are, as far as known, and some differ."""
    tied = inputs.tables is not None and inputs.tables.output is None
    assert inputs.donor is not None
    return not tied and inputs.donor.tables.output is not None


@dataclass(frozen=True, eq=False)
class MappedRows:
    """The `DenseRows` of methods that send a donor's rows into the source's space.

    ``donor_rows`` (int64, ``(n_target,)``) is the donor's row of each token that `mask` is true for. ``maps`` takes
    float32 ``(n, donor hidden)`` to float32 ``(n, source hidden)``, one for each of the source's tables: a tied source
    has no ``"output"``.
    """

    mask: NDArray[np.bool_]
    donor_rows: NDArray[np.int64]
    tables: Tables
    maps: Mapping[Part, Callable[[NDArray[np.float32]], NDArray[np.float32]]]

    def rows(self, part: Part, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the new rows of tokens ``ids``, float32 ``(len(ids), source hidden)``."""
        made = part if part in self.maps else "input"
        return self.maps[made](self.tables.part(made)[self.donor_rows[ids]])


def mapped_rows(
    inputs: TransferInputs,
    match: DonorMatch,
    maps: Mapping[Part, Callable[[NDArray[np.float32]], NDArray[np.float32]]],
) -> MappedRows:
    """Return the rows of a match's new tokens, made by ``maps``."""
    mask = np.zeros(inputs.shape[0], np.bool_)
    rows = np.full(inputs.shape[0], -1, np.int64)
    mask[match.new_target] = True
    rows[match.new_target] = match.new_donor
    return MappedRows(mask, rows, match.donor.tables, maps)


def with_mapped_rows(
    inputs: TransferInputs, kept: TokenMap, match: DonorMatch, dense: DenseRows | None
) -> Initialization:
    """Return copies, then dense rows, then the fallback; the evidence of a dense row is the number of shared tokens.

    The map keeps the fallback's weights under the dense rows, for what has no such row of its own, a head's bias.
    """
    token_map = kept.or_else(fallback(inputs)).with_metadata(**facts(match))
    if dense is None:
        return Initialization(token_map)
    made = np.where(dense.mask, np.float32(len(match.shared_donor)), token_map.evidence)
    token_map = replace(token_map.relabelled(dense.mask, DONOR), evidence=made.astype(np.float32))
    return Initialization(token_map, dense=dense)


def facts(match: DonorMatch) -> dict[str, str | int]:
    """Return what a map's metadata says about its donor."""
    return {"donor": match.donor.name, "shared_tokens": len(match.shared_donor), "donor_tokens": len(match.new_donor)}


def _new_tokens(target: Vocabulary, donor: Vocabulary, done: TokenMap) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ordinary_rows = target.counterparts(donor).tolist()
    special = {donor.strings[i]: i for i in np.flatnonzero(donor.kinds == Kind.SPECIAL)[::-1].tolist()}
    open_ = ~done.filled
    ordinary = (
        (i, ordinary_rows[i] if ordinary_rows[i] >= 0 else None)
        for i in np.flatnonzero(open_ & (target.kinds <= Kind.BYTE)).tolist()
    )
    named = (
        (i, special.get(target.strings[i])) for i in np.flatnonzero(open_ & (target.kinds == Kind.SPECIAL)).tolist()
    )
    pairs = sorted((i, row) for found in (ordinary, named) for i, row in found if row is not None)
    return _ids(i for i, _ in pairs), _ids(row for _, row in pairs)


def _chosen(flags: NDArray[np.bool_], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the flags of rows; False for ids past the table, which a tokenizer may have."""
    inside = ids < len(flags)
    chosen = np.zeros(len(ids), np.bool_)
    chosen[inside] = flags[ids[inside]]
    return chosen


def _usable(tables: Tables, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which rows are finite and not all zero, in both tables."""
    usable = np.ones(len(ids), np.bool_)
    for table in [tables.input] + [tables.output] * (tables.output is not None):
        assert table is not None
        for start in range(0, len(ids), READ_ROWS):
            rows = table[ids[start : start + READ_ROWS]]
            usable[start : start + READ_ROWS] &= np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    return usable


def _ids(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(values), np.int64)
