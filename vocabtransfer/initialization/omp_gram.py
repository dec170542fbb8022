"""Orthogonal matching pursuit for thousands of targets over one set of atoms, in the space of the atoms' Gram matrix.

The plain algorithm multiplies every residual with every atom in every step: ``atoms x hidden`` products a step. Here a
residual is never formed to find the next atom: its inner products with all atoms are those of the target, minus a
combination of the Gram rows of the atoms already taken, ``atoms x step`` products. Gram rows are kept as 16-bit
cosines, all of them where they fit into the memory allowed, else those that were used last. What these cannot decide
is decided in float64 on the rows themselves (`vocabtransfer.initialization.omp_kernels`), and so are the coefficients:
the result depends neither on the memory, nor on the number of threads, nor on how a BLAS library rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from vocabtransfer.initialization.omp_kernels import FINISHED, LANES, UNIT, advance, quantise, solve_all
from vocabtransfer.progress import track
from vocabtransfer.token_map import RowReader

#: Inner products are summed in parts of this length, so that their rounding errors have a small bound.
PART = 256
#: Float32 values that are held of any matrix of inner products at a time.
BLOCK_VALUES = 2**24
MOST_TARGETS = 512
#: Targets that a thread works on before it takes the next ones.
TARGETS_A_TASK = 8


@dataclass(frozen=True, eq=False)
class Pursuit:
    """Sparse combinations of atoms that approximate targets.

    Attributes:
        support: int32 ``(targets, k)``: the atoms taken, in that order; -1 past the last.
        coefficients: float64 ``(targets, k)``: their weights; 0 past the last.
        explained: float64 ``(targets,)``: share of each target's squared norm that is explained.
    """

    support: NDArray[np.int32]
    coefficients: NDArray[np.float64]
    explained: NDArray[np.float64]


def pursue(
    atoms: NDArray[np.float32],
    targets: RowReader,
    ids: NDArray[np.int64],
    k: int,
    *,
    threads: int | None = None,
    cosine_bytes: int | None = None,
) -> Pursuit:
    """Approximate each target by at most ``k`` atoms, greedily, with least-squares weights after every step.

    In each step the atom with the largest absolute inner product with the residual is taken (atoms are not
    normalised), the first one of equals. A target gets fewer than ``k`` atoms where nothing is left to explain or
    where the best atom is linearly dependent on those taken.

    Args:
        atoms: float32 ``(n, d)``, finite.
        targets: gives target rows, float32 and finite, ``d`` values each; they are read in blocks.
        ids: int64 ``(m,)``: the rows to approximate.
        k: most atoms for a target.
        threads: how many threads to use; torch's number when not given. The result does not depend on it.
        cosine_bytes: memory for cosines between atoms, half of what is free when not given; ``2 n^2`` holds them all,
            and with less than about a third of that the speed falls towards the plain algorithm's. The result does not
            depend on it.
    """
    limit = min(k, len(atoms))
    support = np.full((len(ids), limit), -1, np.int32)
    coefficients = np.zeros((len(ids), limit))
    explained = np.zeros(len(ids))
    if limit == 0 or not len(ids):
        return Pursuit(support, coefficients, explained)
    if cosine_bytes is None:
        cosine_bytes = psutil.virtual_memory().available // 2
    dictionary = _Dictionary(atoms, limit, cosine_bytes)
    blocks = range(0, len(ids), dictionary.targets_a_block)
    with ThreadPoolExecutor(threads or torch.get_num_threads()) as pool:
        for start in track(blocks, "rebuilding donor rows", len(blocks)):
            part = slice(start, start + dictionary.targets_a_block)
            block = _Block(dictionary, np.ascontiguousarray(targets[ids[part]]))
            block.run(pool)
            support[part], coefficients[part] = block.supports, block.coefficients()
            explained[part] = block.explained()
    return Pursuit(support, coefficients, explained)


class _Dictionary:
    """Atoms with their norms, and the rows of their cosine matrix that are in memory.

    ``slots`` (int32, ``(n,)``) says in which row of ``cosines`` (int16) an atom's row is, -1 where it is not there.
    """

    def __init__(self, atoms: NDArray[np.float32], limit: int, cosine_bytes: int) -> None:
        """Take float32 atoms ``(n, d)``; every target takes ``limit`` of them at most."""
        n = len(atoms)
        self.atoms = np.ascontiguousarray(atoms)
        self.limit = limit
        self.squares = _squares(self.atoms)
        self.norms = np.sqrt(self.squares).astype(np.float32)
        self.lane_norms = np.array([self.norms[lane::LANES].max() for lane in range(min(n, LANES))])
        self.inverse_norms = np.divide(1, self.norms, out=np.zeros_like(self.norms), where=self.norms > 0)
        # The rows that one target needs must fit in whatever the budget.
        capacity = min(n, max(limit, cosine_bytes // (2 * n)))
        self.targets_a_block = max(1, min(MOST_TARGETS, BLOCK_VALUES // n))
        if capacity < n:
            self.targets_a_block = max(1, min(self.targets_a_block, capacity // limit))
        self.cosines = np.empty((capacity, n), np.int16)
        self.slots = np.full(n, -1, np.int32)
        self._owners = np.full(capacity, -1, np.int64)
        self._last_used = np.full(capacity, -1, np.int64)
        self._time = 0
        if capacity == n:
            self._fill_all()

    def inner_products(self, rows: NDArray[np.float32], start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return ``rows @ atoms[start:stop].T``, float32, each value within `rounding` of norm times norm."""
        mine, others = torch.from_numpy(rows), torch.from_numpy(self.atoms[start:stop])
        result = torch.zeros(len(mine), len(others))
        for part in range(0, mine.shape[1], PART):
            result.addmm_(mine[:, part : part + PART], others[:, part : part + PART].T)
        values: NDArray[np.float32] = result.numpy()
        return values

    @property
    def rounding(self) -> float:
        """Largest error of an inner product of rows of norm 1: the sum of a part, in any order, and that of parts."""
        hidden = self.atoms.shape[1]
        return float((min(hidden, PART) + -(-hidden // PART)) * UNIT)

    def next_block(self) -> None:
        """Start with new targets: rows that none of them uses may be replaced."""
        self._time += 1

    def need(self, used: NDArray[np.int64]) -> None:
        """Bring the rows of atoms ``used`` (distinct) into memory; none used since `next_block` is replaced."""
        if len(self.cosines) == len(self.atoms):
            return
        present = self.slots[used]
        self._last_used[present[present >= 0]] = self._time
        missing = used[present < 0]
        room = np.argsort(self._last_used, kind="stable")[: len(missing)].astype(np.int32)
        former = self._owners[room]
        self.slots[former[former >= 0]] = -1
        step = max(1, BLOCK_VALUES // len(self.atoms))
        for start in range(0, len(missing), step):
            ids, places = missing[start : start + step], room[start : start + step]
            rows = np.empty((len(ids), len(self.atoms)), np.int16)
            products = self.inner_products(self.atoms[ids])
            quantise(products, self.inverse_norms[ids], self.inverse_norms, rows)
            self.cosines[places] = rows
        self.slots[missing] = room
        self._owners[room] = missing
        self._last_used[room] = self._time

    def _fill_all(self) -> None:
        """Compute the whole matrix, tile by tile, each pair of tiles once."""
        n, size = len(self.atoms), 2048
        self.slots[:] = np.arange(n)
        for start in track(range(0, n, size), "comparing shared tokens"):
            mine = slice(start, start + size)
            for other_start in range(start, n, size):
                others = slice(other_start, other_start + size)
                products = self.inner_products(self.atoms[mine], other_start, other_start + size)
                tile = self.cosines[mine, others]
                quantise(products, self.inverse_norms[mine], self.inverse_norms[others], tile)
                if other_start > start:
                    self.cosines[others, mine] = tile.T


class _Block:
    """The state of the targets that are worked on together."""

    def __init__(self, dictionary: _Dictionary, targets: NDArray[np.float32]) -> None:
        """Take float32 targets ``(b, d)``."""
        count, limit = len(targets), dictionary.limit
        self._dictionary = dictionary
        self._targets = targets
        self.squares = _squares(targets)
        self.left = self.squares.copy()
        self.supports = np.full((count, limit), -1, np.int32)
        self._sizes = np.zeros(count, np.int64)
        self._factors = np.empty((count, limit * (limit + 1) // 2))
        self._projections = np.zeros((count, limit))
        self._wanted = np.full(count, FINISHED, np.int64)
        self._scores = dictionary.inner_products(targets)
        norms = np.sqrt(self.squares).astype(np.float32)
        self._scores *= np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[:, None]
        self._scores *= dictionary.inverse_norms
        dictionary.next_block()

    def run(self, pool: ThreadPoolExecutor) -> None:
        """Finish all targets, fetching rows of cosines whenever some of them can go no further without."""
        queue = np.flatnonzero(self.squares > 0)
        while len(queue):
            list(pool.map(self._advance, _tasks(queue)))
            queue = queue[self._wanted[queue] != FINISHED]
            if len(queue):
                taken = self.supports[queue]
                self._dictionary.need(np.unique(taken[taken >= 0]).astype(np.int64))

    def coefficients(self) -> NDArray[np.float64]:
        """Return the weights of the atoms taken, float64 ``(b, k)``."""
        result = np.zeros_like(self._projections)
        solve_all(self._factors, self._projections, self._sizes, result)
        return result

    def explained(self) -> NDArray[np.float64]:
        """Return the explained share of each target's squared norm, float64 ``(b,)``; 0 for a row of zeros."""
        share = 1 - np.divide(self.left, self.squares, out=np.ones_like(self.left), where=self.squares > 0)
        return np.clip(share, 0, 1)

    def _advance(self, queue: NDArray[np.int64]) -> None:
        d = self._dictionary
        advance(
            queue, d.atoms, d.squares, d.norms, d.lane_norms, self._targets, self.squares, self._scores, d.cosines,
            d.slots, d.rounding, self.supports, self._sizes, self._factors, self._projections, self.left, self._wanted,
        )  # fmt: skip


def _tasks(queue: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(queue), TARGETS_A_TASK):
        yield queue[start : start + TARGETS_A_TASK]


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return squared norms, float64 ``(n,)``."""
    result = np.empty(len(rows))
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024].astype(np.float64)
        result[start : start + 1024] = np.einsum("ij,ij->i", part, part)
    return result
