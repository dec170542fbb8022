"""Orthogonal matching pursuit: what it takes and with which weights, against the plain algorithm."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vocabtransfer.initialization.omp_gram import Pursuit, pursue

Array = NDArray[Any]


def plain_pursuit(atoms: Array, target: Array, k: int, dtype: Any) -> tuple[list[int], Array, float]:
    """The algorithm as it is written down: every residual times every atom. Also returns the narrowest decision.

    That is the smallest gap between the best and the next best score of any step, as a share of the best.
    """
    atoms, target = atoms.astype(dtype), target.astype(dtype)
    taken: list[int] = []
    basis: list[Array] = []
    residual, narrowest = target.copy(), np.inf
    weights = np.zeros(0, dtype)
    for _ in range(min(k, len(atoms))):
        if residual @ residual <= 1e-12 * (target @ target):
            break
        scores = np.abs(atoms @ residual)
        scores[taken] = -1
        best = int(scores.argmax())
        outside = atoms[best].copy()
        for _ in range(2):
            for direction in basis:
                outside -= (direction @ outside) * direction
        if outside @ outside <= 1e-8 * (atoms[best] @ atoms[best]):
            break
        if len(scores) > 1:
            narrowest = min(narrowest, 1 - float(np.partition(scores, -2)[-2] / scores[best]))
        taken.append(best)
        basis.append(outside / np.linalg.norm(outside))
        weights = np.linalg.lstsq(atoms[taken].T, target, rcond=None)[0]
        residual = target - atoms[taken].T @ weights
    return taken, weights, narrowest


def taken_by(found: Pursuit, target: int) -> list[int]:
    return [int(atom) for atom in found.support[target] if atom >= 0]


def table(seed: int, count: int, hidden: int, spread: float = 0.3) -> NDArray[np.float32]:
    """Rows as embedding tables have them: a falling spectrum, a common mean, lengths that differ, near-copies."""
    generator = np.random.default_rng(seed)
    spectrum = (1 + np.arange(hidden)) ** -0.5
    rows = (generator.standard_normal((count, hidden)) + 0.2) * spectrum * generator.lognormal(0, spread, (count, 1))
    copies = generator.integers(0, count, count // 10)
    rows[generator.integers(0, count, count // 10)] = rows[copies] * (1 + 0.05 * generator.standard_normal(hidden))
    return rows.astype(np.float32)


def found_for(atoms: Array, targets: Array, k: int, **options: Any) -> Pursuit:
    return pursue(atoms, targets, np.arange(len(targets)), k, **options)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 400),
    hidden=st.integers(1, 80),
    k=st.integers(1, 24),
    spread=st.sampled_from([0.0, 0.3, 2.0]),
    precision=st.sampled_from([np.float64, np.float32]),
)
def test_it_takes_what_the_plain_algorithm_takes(
    seed: int, count: int, hidden: int, k: int, spread: float, precision: Any
) -> None:
    atoms, targets = table(seed, count, hidden, spread), table(seed + 1, 4, hidden)
    # Float32 itself decides nothing that is nearer than its rounding; a last step in an exhausted space is such a one.
    k = min(k, max(1, hidden // 2)) if precision is np.float32 else k
    found = found_for(atoms, targets, k)
    for t in range(len(targets)):
        taken, weights, narrowest = plain_pursuit(atoms, targets[t], k, precision)
        assume(narrowest > (1e-9 if precision is np.float64 else 1e-4))
        assert taken_by(found, t) == taken
        if precision is np.float64:
            np.testing.assert_allclose(found.coefficients[t, : len(taken)], weights, rtol=1e-5, atol=1e-7)
        assert not found.coefficients[t, len(taken) :].any()


def test_scores_that_only_float64_can_tell_apart_are_told_apart() -> None:
    generator = np.random.default_rng(3)
    atoms = generator.standard_normal((500, 64)).astype(np.float32)
    # Forty atoms whose scores differ by some units of the last place of 16-bit cosines, and of float32 sums.
    atoms[100:140] = atoms[100] * (1 + 1e-6 * generator.standard_normal((40, 64)).astype(np.float32))
    targets = (atoms[100] + 0.3 * generator.standard_normal((30, 64))).astype(np.float32)
    found = found_for(atoms, targets, 3)
    exact = np.abs(atoms.astype(np.float64) @ targets.astype(np.float64).T).argmax(axis=0)
    assert len(set(exact.tolist())) > 3
    np.testing.assert_array_equal(found.support[:, 0], exact)


def test_of_equal_atoms_the_first_is_taken_and_the_others_never() -> None:
    atoms = table(1, 40, 16)
    doubled = np.concatenate([atoms, atoms])
    found = found_for(doubled, table(2, 20, 16), 8)
    assert found.support.max() < 40
    np.testing.assert_array_equal(found.support, found_for(atoms, table(2, 20, 16), 8).support)


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
def test_the_result_depends_neither_on_memory_nor_on_threads(rows: int) -> None:
    atoms, targets = table(5, 900, 40), table(6, 130, 40)
    whole = found_for(atoms, targets, 12, threads=1)
    tight = found_for(atoms, targets, 12, threads=3, cosine_bytes=rows * 2 * len(atoms))
    assert whole.support.tobytes() == tight.support.tobytes()
    assert whole.coefficients.tobytes() == tight.coefficients.tobytes()
    assert whole.explained.tobytes() == tight.explained.tobytes()


def test_a_target_finds_the_same_atoms_whatever_else_is_asked_for() -> None:
    atoms, targets = table(7, 600, 48), table(8, 50, 48)
    whole = found_for(atoms, targets, 10)
    some = pursue(atoms, targets, np.array([31, 4, 4]), 10)
    np.testing.assert_array_equal(some.support, whole.support[[31, 4, 4]])
    np.testing.assert_array_equal(some.coefficients, whole.coefficients[[31, 4, 4]])


def test_renumbering_the_atoms_renumbers_the_result() -> None:
    atoms, targets = table(9, 500, 32), table(10, 25, 32)
    order = np.random.default_rng(0).permutation(len(atoms))
    found, renumbered = found_for(atoms, targets, 9), found_for(atoms[order], targets, 9)
    np.testing.assert_array_equal(order[renumbered.support], found.support)
    np.testing.assert_allclose(renumbered.coefficients, found.coefficients, rtol=1e-9)


def test_scaling_a_target_scales_its_weights_alone() -> None:
    atoms, targets = table(11, 300, 32), table(12, 10, 32)
    found, scaled = found_for(atoms, targets, 6), found_for(atoms, targets * np.float32(2**20), 6)
    np.testing.assert_array_equal(found.support, scaled.support)
    np.testing.assert_array_equal(found.coefficients * 2**20, scaled.coefficients)


def test_the_explained_share_is_that_of_the_rows_it_makes() -> None:
    atoms, targets = table(13, 400, 64), table(14, 30, 64)
    found = found_for(atoms, targets, 7)
    made = np.einsum("tk,tkd->td", found.coefficients, atoms[found.support].astype(np.float64))
    share = 1 - ((targets - made) ** 2).sum(axis=1) / (targets.astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.explained, share, atol=1e-9)
    assert 0.1 < share.mean() < 0.99


def test_a_combination_of_few_atoms_is_found_exactly_and_no_more_atoms_are_taken() -> None:
    generator = np.random.default_rng(15)
    atoms = generator.standard_normal((200, 256)).astype(np.float32)
    chosen = generator.permutation(200)[:4]
    weights = np.array([3.0, -2.0, 1.5, 1.0])
    target = (weights @ atoms[chosen].astype(np.float64)).astype(np.float32)
    found = found_for(atoms, target[None], 20)
    assert sorted(taken_by(found, 0)) == sorted(chosen.tolist())
    order = dict(zip(chosen.tolist(), weights.tolist(), strict=True))
    np.testing.assert_allclose(found.coefficients[0, :4], [order[atom] for atom in taken_by(found, 0)], rtol=1e-5)


def test_rows_of_zeros_no_atoms_no_targets_and_one_dimension() -> None:
    atoms = table(16, 30, 8)
    empty = found_for(atoms, np.zeros((2, 8), np.float32), 4)
    assert (empty.support == -1).all() and not empty.explained.any()
    assert found_for(atoms[:0], table(17, 3, 8), 4).support.shape == (3, 0)
    assert found_for(atoms, table(17, 3, 8)[:0], 4).support.shape == (0, 4)
    line = found_for(np.array([[2.0], [-5.0]], np.float32), np.array([[10.0]], np.float32), 64)
    assert taken_by(line, 0) == [1] and line.coefficients[0].tolist() == [-2.0, 0.0] and line.explained[0] == 1
    assert not taken_by(found_for(np.zeros((3, 8), np.float32), table(17, 3, 8), 4), 0)
