"""Methods that learn from a donor model: which tokens they match, and the rows they make."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizer_samples import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, Donor, Initialization, Tables, TransferInputs, clp, omp, salt, sava
from vocabtransfer.initialization.donor import DONOR, match_donor
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.sava import fit_affine
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind, Vocabulary

Rows = NDArray[np.float32]
NAMES = ("omp", "clp", "clp_plus", "sava", "salt")
FUNCTIONS = {"omp": omp.omp, "clp": clp.clp, "clp_plus": clp.clp_plus, "sava": sava.sava, "salt": salt.salt}
ENGLISH = ["the cat sat on the mat with the other cat and another hat that nobody had"] * 3
TATAR = ["Татар теле: җәй, үзәк, һәм the cat sat. Русский язык, ёж; Қазақ тілі: ғылым бар"] * 3
HIDDEN, DONOR_HIDDEN = 20, 24


def trained_on(texts: list[str], size: int, *special: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", *special]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=names, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def renumbered(tokenizer: PreTrainedTokenizerFast, new_id: NDArray[np.int64]) -> PreTrainedTokenizerFast:
    """The same tokenizer with every id changed: token ``i`` becomes ``new_id[i]``."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"] = {token: int(new_id[i]) for token, i in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        token["id"] = int(new_id[token["id"]])
    backend = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def shuffle(size: int, seed: int) -> NDArray[np.int64]:
    """New ids in random order, but for the ordinary token 300, which gets id 0."""
    order = np.random.default_rng(seed).permutation(size)
    last = int(np.flatnonzero(order == 0)[0])
    order[[last, 300]] = order[[300, last]]
    return order


def moved_rows(tables: Tables, order: NDArray[np.int64]) -> tuple[Rows, Rows]:
    """Both tables of an untied model after `renumbered`."""
    assert tables.output is not None
    old_id = np.argsort(order)
    return tables.input[old_id], tables.output[old_id]


def rows(seed: int, count: int, hidden: int) -> Rows:
    """Rows with a common direction, as trained tables have."""
    generator = np.random.default_rng(seed)
    made: Rows = (0.7 + generator.standard_normal((count, hidden))).astype(np.float32)
    return made


def donor_of(tokenizer: PreTrainedTokenizerFast, table: Rows, output: Rows | None = None) -> Donor:
    tables = Tables(table, output, table.shape[1])
    return Donor("helper", Vocabulary.from_tokenizer(tokenizer), tables, np.ones(len(table), np.bool_))


def inputs_of(
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    donor: Donor,
    table: Rows,
    output: Rows | None = None,
) -> TransferInputs:
    trained = np.ones(len(table), np.bool_)
    tables = Tables(table, output, table.shape[1])
    return TransferInputs(PieceEncoder(source), PieceEncoder(target), trained, donor=donor, tables=tables)


@pytest.fixture(scope="module")
def english() -> PreTrainedTokenizerFast:
    return trained_on([*ENGLISH, *TEXTS], 420)


@pytest.fixture(scope="module")
def tatar() -> PreTrainedTokenizerFast:
    return trained_on([*TATAR, *ENGLISH], 500, "<|im_start|>")


@pytest.fixture(scope="module")
def inputs(english: PreTrainedTokenizerFast, tatar: PreTrainedTokenizerFast) -> TransferInputs:
    """A source without Tatar, a target and a donor that have it; both models untied."""
    donor = donor_of(tatar, rows(1, len(tatar), DONOR_HIDDEN), rows(2, len(tatar), DONOR_HIDDEN))
    return inputs_of(english, tatar, donor, rows(3, len(english), HIDDEN), rows(4, len(english), HIDDEN))


def final_rows(inputs: TransferInputs, made: Initialization, part: Any = "input") -> Rows:
    assert inputs.tables is not None
    token_map = made.output_map if part == "output" and made.output_map is not None else made.token_map
    table = token_map.apply(inputs.tables.part(part))
    if made.dense is not None:
        ids = np.flatnonzero(made.dense.mask)
        table[ids] = made.dense.rows(part, ids)
    return table


def same_maps(a: TokenMap, b: TokenMap) -> bool:
    return (
        a.counts_by_rule() == b.counts_by_rule()
        and a.weights.shape == b.weights.shape
        and (a.weights != b.weights).nnz == 0
        and (a.groups != b.groups).nnz == 0
    )


# -- what is matched ---------------------------------------------------------------------------------------------


def test_shared_tokens_are_the_same_bytes_in_both_and_new_ones_in_target_and_donor(inputs: TransferInputs) -> None:
    match = match_donor(inputs, identity(inputs))
    donor, source, target = match.donor.vocabulary, inputs.source_vocabulary, inputs.target_vocabulary
    assert len(match.shared_donor) > 256 and len(match.new_target) > 50
    for theirs, ours in zip(match.shared_donor.tolist(), match.shared_source.tolist(), strict=True):
        assert donor.key(theirs) == source.key(ours)
    missing = {i for i in range(len(target)) if target.kinds[i] == Kind.TEXT and target.key(i) not in source.index()}
    special = target.strings.index("<|im_start|>")
    assert set(match.new_target.tolist()) == missing | {special}
    for ours, theirs in zip(match.new_target.tolist(), match.new_donor.tolist(), strict=True):
        assert target.strings[ours] == donor.strings[theirs]


def test_rows_that_were_not_trained_or_are_not_numbers_take_no_part(inputs: TransferInputs) -> None:
    match = match_donor(inputs, identity(inputs))
    assert inputs.donor is not None and inputs.tables is not None
    table, head = np.array(inputs.donor.tables.input), np.array(inputs.donor.tables.output)
    own = np.array(inputs.tables.input)
    bad_shared, bad_new = match.shared_donor[:5], match.new_donor[:4]
    table[bad_shared[0], 3], head[bad_shared[1], 0], table[bad_shared[2]] = np.nan, np.inf, 0
    table[bad_new[0], 0], head[bad_new[1]] = np.nan, 0
    own[match.shared_source[5], 0] = np.nan
    trained, own_trained = inputs.donor.trained.copy(), inputs.trained.copy()
    trained[bad_shared[3]], trained[bad_new[2]], own_trained[match.shared_source[4]] = False, False, False
    damaged = replace(
        inputs,
        trained=own_trained,
        tables=Tables(own, inputs.tables.output, HIDDEN),
        donor=replace(inputs.donor, tables=Tables(table, head, DONOR_HIDDEN), trained=trained),
    )
    left = match_donor(damaged, identity(inputs))
    np.testing.assert_array_equal(left.shared_donor, match.shared_donor[6:])
    np.testing.assert_array_equal(left.new_target, match.new_target[3:])
    for name in NAMES:
        made = FUNCTIONS[name](damaged)
        by_donor = np.array(made.token_map.rule_names)[made.token_map.rule] == DONOR
        # What the damage made new, a token that cannot be copied any more, is made by the donor too.
        assert set(left.new_target.tolist()) <= set(np.flatnonzero(by_donor).tolist())
        assert not by_donor[match.new_target[:3]].any()
        for part in ("input", "output"):
            assert np.isfinite(final_rows(damaged, made, part)[by_donor]).all(), (name, part)


def test_a_table_shorter_than_its_vocabulary_is_read_within_its_rows(inputs: TransferInputs) -> None:
    assert inputs.donor is not None
    short = Tables(np.array(inputs.donor.tables.input)[:400], None, DONOR_HIDDEN)
    cut = replace(inputs, donor=replace(inputs.donor, tables=short, trained=np.ones(400, np.bool_)))
    assert match_donor(cut, identity(cut)).new_donor.max() < 400
    assert FUNCTIONS["omp"](cut).token_map.filled.all()


# -- all methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_equal_and_special_tokens_are_copied_the_rest_made_and_told_apart(name: str, inputs: TransferInputs) -> None:
    made, kept = METHODS[name](inputs), identity(inputs)
    match = match_donor(inputs, kept)
    rules = np.array(made.token_map.rule_names)[made.token_map.rule]
    assert made.token_map.filled.all()
    assert (rules[match.new_target] == DONOR).all()
    assert set(rules[kept.filled]) == {"special", "copied"}
    assert inputs.tables is not None
    for part in ("input", "output"):
        table = final_rows(inputs, made, part)
        expected = kept.apply(inputs.tables.part(part))
        np.testing.assert_array_equal(table[kept.filled], expected[kept.filled])
        pieces = fallback(inputs).apply(inputs.tables.part(part))
        assert np.abs(table - pieces)[match.new_target].max(axis=1).min() > 1e-3
    assert (made.token_map.evidence[match.new_target] > 0).all()
    assert made.token_map.metadata["donor"] == "helper"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_inputs_give_the_same_bytes(name: str, inputs: TransferInputs) -> None:
    first, second = FUNCTIONS[name](inputs), FUNCTIONS[name](inputs)
    assert first.token_map.to_bytes() == second.token_map.to_bytes()
    for part in ("input", "output"):
        assert final_rows(inputs, first, part).tobytes() == final_rows(inputs, second, part).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_renumbering_any_vocabulary_renumbers_the_result(
    name: str, inputs: TransferInputs, english: PreTrainedTokenizerFast, tatar: PreTrainedTokenizerFast
) -> None:
    plain = final_rows(inputs, FUNCTIONS[name](inputs))
    assert inputs.tables is not None and inputs.donor is not None
    source, target, donor = shuffle(len(english), 1), shuffle(len(tatar), 2), shuffle(len(tatar), 3)
    table, head = moved_rows(inputs.tables, source)
    their_table, their_head = moved_rows(inputs.donor.tables, donor)
    moved = inputs_of(
        renumbered(english, source),
        renumbered(tatar, target),
        donor_of(renumbered(tatar, donor), their_table, their_head),
        table,
        head,
    )
    assert moved.target_vocabulary.kinds[0] == Kind.TEXT and moved.source_vocabulary.kinds[0] == Kind.TEXT
    made = FUNCTIONS[name](moved)
    np.testing.assert_allclose(final_rows(moved, made)[target], plain, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_without_shared_tokens_all_rows_fall_back(name: str, inputs: TransferInputs) -> None:
    assert inputs.donor is not None
    untrained = replace(inputs, donor=replace(inputs.donor, trained=np.zeros_like(inputs.donor.trained)))
    made = FUNCTIONS[name](untrained)
    assert same_maps(made.token_map, METHODS["pieces"](untrained).token_map)
    assert made.dense is None or not made.dense.mask.any()


@pytest.mark.parametrize("name", NAMES)
def test_where_the_source_has_all_tokens_nothing_is_left_to_make(name: str, inputs: TransferInputs) -> None:
    same = replace(inputs, target=inputs.source)
    made = FUNCTIONS[name](same)
    assert set(made.token_map.counts_by_rule()) == {"special", "copied"}
    assert made.dense is None or not made.dense.mask.any()


@pytest.mark.parametrize("name", NAMES)
def test_tokens_the_donor_does_not_have_fall_back(name: str, inputs: TransferInputs, english: Any) -> None:
    ignorant = replace(inputs, donor=donor_of(english, rows(8, len(english), DONOR_HIDDEN)))
    made = FUNCTIONS[name](ignorant)
    assert same_maps(made.token_map, METHODS["pieces"](ignorant).token_map)


@pytest.mark.parametrize("name", NAMES)
def test_vocabularies_of_one_token(name: str) -> None:
    def only(token: str) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.BPE(vocab={token: 0}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=backend)

    for source, target, donor in (("a", "a", "a"), ("a", "b", "b"), ("a", "b", "a"), ("b", "a", "c")):
        tiny = inputs_of(only(source), only(target), donor_of(only(donor), rows(1, 1, 4)), rows(2, 1, 3))
        made = FUNCTIONS[name](tiny)
        np.testing.assert_allclose(final_rows(tiny, made), rows(2, 1, 3), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_donor_is_asked_for(name: str, inputs: TransferInputs) -> None:
    with pytest.raises(UsageError, match="`donor`"):
        METHODS[name](replace(inputs, donor=None))


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
