"""The rows that each method makes from a donor model, held against its formula."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from donor_samples import DONOR_HIDDEN, HIDDEN, final_rows, rows, sample_inputs
from numpy.typing import NDArray

from vocabtransfer.initialization import Tables, TransferInputs, clp, omp, salt, sava
from vocabtransfer.initialization.donor import match_donor
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.sava import fit_affine


@pytest.fixture(scope="module")
def inputs() -> TransferInputs:
    return sample_inputs()


# -- OMP ---------------------------------------------------------------------------------------------------------


def test_omp_carries_a_linear_change_of_space_over_exactly(inputs: TransferInputs) -> None:
    """A source whose shared rows are the donor's, turned: enough atoms rebuild every row where it belongs."""
    assert inputs.donor is not None
    match = match_donor(inputs, identity(inputs))
    turns = [np.random.default_rng(seed).standard_normal((DONOR_HIDDEN, HIDDEN)) for seed in (5, 6)]
    theirs = [np.array(inputs.donor.tables.input, np.float64), np.array(inputs.donor.tables.output, np.float64)]
    own = [np.zeros((len(inputs.trained), HIDDEN), np.float32) + 1 for _ in range(2)]
    for table, head, turn in zip(own, theirs, turns, strict=True):
        table[match.shared_source] = head[match.shared_donor] @ turn
    turned = replace(inputs, tables=Tables(own[0], own[1], HIDDEN))
    made = omp.omp(turned)
    for part, head, turn in zip(("input", "output"), theirs, turns, strict=True):
        expected = (head @ turn)[match.new_donor]
        np.testing.assert_allclose(final_rows(turned, made, part)[match.new_target], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(made.token_map.evidence[match.new_target], 1, atol=1e-5)


def test_omp_weighs_few_shared_tokens_by_how_well_they_explain_the_donor_row(inputs: TransferInputs) -> None:
    assert inputs.donor is not None
    match = match_donor(inputs, identity(inputs))
    made = omp.rebuilt_rows(match, inputs.shape, "input", k=3)
    table = np.array(inputs.donor.tables.input, np.float64)
    back = np.zeros(len(inputs.trained), np.int64) - 1
    back[match.shared_source] = match.shared_donor
    for target, row in zip(match.new_target.tolist(), match.new_donor.tolist(), strict=True):
        columns = [column for column, _ in made.row(target)]
        assert len(columns) == 3 and (back[columns] >= 0).all()
        best = np.linalg.lstsq(table[back[columns]].T, table[row], rcond=None)[0]
        np.testing.assert_allclose([weight for _, weight in made.row(target)], best, rtol=1e-4, atol=1e-5)
        rest = table[row] - table[back[columns]].T @ best
        assert made.evidence[target] == pytest.approx(1 - (rest @ rest) / (table[row] @ table[row]), abs=1e-5)


def test_omp_treats_the_head_by_itself_only_where_both_models_have_one(inputs: TransferInputs) -> None:
    assert inputs.donor is not None and inputs.tables is not None
    made = omp.omp(inputs)
    assert made.output_map is not None and made.output_map.to_bytes() != made.token_map.to_bytes()
    tied_source = replace(inputs, tables=replace(inputs.tables, output=None))
    tied_donor = replace(inputs, donor=replace(inputs.donor, tables=replace(inputs.donor.tables, output=None)))
    for tied in (tied_source, tied_donor):
        assert omp.omp(tied).output_map is None
        assert omp.omp(tied).token_map.to_bytes() == made.token_map.to_bytes()


# -- CLP ---------------------------------------------------------------------------------------------------------


def cosines(inputs: TransferInputs, part: Any) -> tuple[Any, NDArray[np.float64]]:
    """The cosines of each new token with all shared ones, float64, computed one by one."""
    match = match_donor(inputs, identity(inputs))
    table = np.array(match.donor.tables.part(part), np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return match, table[match.new_donor] @ table[match.shared_donor].T


@pytest.mark.parametrize("part", ["input", "output"])
def test_clp_rows_are_the_formula_and_its_weights_sum_to_one(inputs: TransferInputs, part: Any) -> None:
    match, likeness = cosines(inputs, part)
    weights = likeness / likeness.sum(axis=1, keepdims=True)
    assert inputs.tables is not None
    expected = weights @ np.array(inputs.tables.part(part), np.float64)[match.shared_source]
    made = final_rows(inputs, clp.clp(inputs), part)
    np.testing.assert_allclose(made[match.new_target], expected, rtol=1e-4, atol=1e-5)
    level = Tables(np.full((len(inputs.trained), HIDDEN), 2.5, np.float32), None, HIDDEN)
    constant = replace(inputs, tables=level)
    np.testing.assert_allclose(final_rows(constant, clp.clp(constant), part), 2.5, rtol=1e-5)


def test_clp_makes_no_row_of_likenesses_that_cancel(inputs: TransferInputs) -> None:
    assert inputs.donor is not None
    match = match_donor(inputs, identity(inputs))
    table = np.random.default_rng(1).standard_normal((len(inputs.donor.trained), DONOR_HIDDEN)).astype(np.float32)
    half = len(match.shared_donor) // 2
    table[match.shared_donor[half : 2 * half]] = -table[match.shared_donor[:half]]
    table[match.shared_donor[2 * half :]] = table[match.shared_donor[0]]
    table[match.new_donor[0]] = table[match.shared_donor[0]]
    wild = replace(inputs, donor=replace(inputs.donor, tables=Tables(table, None, DONOR_HIDDEN)))
    made = clp.clp(wild)
    largest = np.abs(np.array(inputs.tables and inputs.tables.input)).max()
    assert np.abs(final_rows(wild, made)).max() < 10 * largest
    assert made.token_map.counts_by_rule()["pieces"] > 0.9 * len(match.new_target)


def test_clp_plus_is_the_nearest_distribution_to_the_cosines(inputs: TransferInputs) -> None:
    match, likeness = cosines(inputs, "input")
    token_map = clp.clp_plus(inputs).token_map
    np.testing.assert_allclose(token_map.row_sums()[match.new_target], 1, atol=1e-5)
    for i, target in enumerate(match.new_target.tolist()):
        ordered = np.sort(likeness[i])[::-1]
        sums = ordered.cumsum() - 1
        count = int(np.flatnonzero(ordered * np.arange(1, len(ordered) + 1) > sums)[-1]) + 1
        wanted = np.maximum(likeness[i] - sums[count - 1] / count, 0)
        weights = np.zeros(len(inputs.trained))
        weights[match.shared_source] = wanted
        found = token_map.weights[[target]].toarray()[0, : len(weights)]
        np.testing.assert_allclose(found, weights, atol=1e-5)
        assert token_map.evidence[target] == np.count_nonzero(found) >= 1
    assert np.median(token_map.evidence[match.new_target]) < len(match.shared_donor) / 4


# -- SAVA --------------------------------------------------------------------------------------------------------


def test_sava_finds_an_affine_change_of_space_and_leaves_copies_alone(inputs: TransferInputs) -> None:
    assert inputs.donor is not None
    match, generator = match_donor(inputs, identity(inputs)), np.random.default_rng(2)
    tables = []
    expected = []
    for theirs in (inputs.donor.tables.input, inputs.donor.tables.output):
        matrix, constant = generator.standard_normal((DONOR_HIDDEN, HIDDEN)), 5 * generator.standard_normal(HIDDEN)
        changed = np.array(theirs, np.float64) @ matrix + constant
        own = generator.standard_normal((len(inputs.trained), HIDDEN)).astype(np.float32)
        own[match.shared_source] = changed[match.shared_donor]
        tables.append(own)
        expected.append(changed[match.new_donor])
    affine = replace(inputs, tables=Tables(tables[0], tables[1], HIDDEN))
    made = sava.sava(affine)
    kept = identity(affine)
    assert made.dense is not None and not (made.dense.mask & kept.filled).any()
    for part, own, wanted in zip(("input", "output"), tables, expected, strict=True):
        table = final_rows(affine, made, part)
        np.testing.assert_allclose(table[match.new_target], wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(table[kept.filled], kept.apply(own)[kept.filled])
    assert (made.token_map.evidence[match.new_target] == len(match.shared_donor)).all()


def test_sava_on_a_tied_model_gives_the_head_the_input_rows(inputs: TransferInputs) -> None:
    assert inputs.tables is not None
    tied = replace(inputs, tables=replace(inputs.tables, output=None))
    dense = sava.sava(tied).dense
    assert dense is not None
    donor = tied.donor
    assert donor is not None and donor.tables.output is not None
    ids = np.flatnonzero(dense.mask)
    np.testing.assert_array_equal(dense.rows("input", ids), dense.rows("output", ids))


# -- SALT --------------------------------------------------------------------------------------------------------


def test_salt_is_ridge_regression_on_the_nearest_tokens() -> None:
    generator = np.random.default_rng(5)
    shared, source = rows(6, 400, DONOR_HIDDEN), rows(7, 400, HIDDEN)
    asked = generator.standard_normal((30, DONOR_HIDDEN)).astype(np.float32)
    columns, weights = salt.local_weights(asked, shared, 0.3)
    assert columns.shape == (30, salt.NEIGHBOURS)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    cosines = asked @ shared.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(shared, axis=1)
    for i in range(30):
        near = np.argsort(-cosines[i])[: salt.NEIGHBOURS]
        assert set(near.tolist()) == set(columns[i].tolist())
        x, y = shared[near].astype(np.float64), source[near].astype(np.float64)
        centred = x - x.mean(axis=0)
        ridge = 0.3 * (centred**2).sum() / len(near)
        matrix = np.linalg.solve(centred.T @ centred + ridge * np.eye(DONOR_HIDDEN), centred.T @ (y - y.mean(axis=0)))
        expected = y.mean(axis=0) + (asked[i] - x.mean(axis=0)) @ matrix
        np.testing.assert_allclose(weights[i] @ source[columns[i]], expected, rtol=1e-3, atol=1e-4)


def test_salt_follows_a_change_of_space_that_differs_from_place_to_place() -> None:
    generator = np.random.default_rng(8)
    kinds = generator.integers(2, size=3000)
    centres = 4 * generator.standard_normal((2, DONOR_HIDDEN))
    shared = (centres[kinds] + generator.standard_normal((3000, DONOR_HIDDEN))).astype(np.float32)
    matrices = generator.standard_normal((2, DONOR_HIDDEN, HIDDEN))
    source = np.einsum("nd,ndh->nh", shared, matrices[kinds]).astype(np.float32)
    seen, unseen = np.arange(2800), np.arange(2800, 3000)
    ridge = salt.best_ridge(shared[seen], source, seen)
    columns, weights = salt.local_weights(shared[unseen], shared[seen], ridge)
    local = np.einsum("nk,nkh->nh", weights, source[seen][columns])
    everywhere = fit_affine(shared, seen, source, seen)(shared[unseen])
    wanted = source[unseen]
    assert ((local - wanted) ** 2).sum() < 0.2 * ((everywhere - wanted) ** 2).sum()


@pytest.mark.parametrize(("count", "noise"), [(60, 1.0), (120, 3.0), (2000, 0.1), (30, 0.5)])
def test_the_ridge_is_no_worse_than_plain_least_squares_on_rows_not_seen(count: int, noise: float) -> None:
    generator = np.random.default_rng(count)
    matrix = generator.standard_normal((40, 10))
    x = (generator.standard_normal((count + 500, 40)) * (1 + np.arange(40)) ** -0.5).astype(np.float32)
    clean = x @ matrix + 1.0
    y = (clean + noise * generator.standard_normal(clean.shape)).astype(np.float32)
    seen = np.arange(count)
    fitted = fit_affine(x, seen, y, seen)
    padded = np.hstack([x, np.ones((len(x), 1))])
    plain = padded @ np.linalg.lstsq(padded[:count], y[:count], rcond=None)[0]

    def error(made: NDArray[Any]) -> float:
        return float(((made - clean)[count:] ** 2).mean())

    assert error(fitted(x)) <= 1.02 * error(plain)
    unseen = 1 - ((fitted(x) - y)[count:] ** 2).sum() / ((y - y.mean(axis=0))[count:] ** 2).sum()
    assert fitted.explained == pytest.approx(unseen, abs=0.25 if count < 100 else 0.1)


def test_a_fit_to_rows_that_are_all_alike_is_their_mean() -> None:
    x, y = np.ones((30, 4), np.float32), rows(1, 30, 3)
    ids = np.arange(30)
    np.testing.assert_allclose(fit_affine(x, ids, y, ids)(x), np.tile(y.mean(axis=0), (30, 1)), rtol=1e-5)
