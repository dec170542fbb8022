"""Methods that learn from a donor model: which tokens they match, and the rows they make."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from donor_samples import (
    DONOR_HIDDEN,
    HIDDEN,
    donor_of,
    english_tokenizer,
    final_rows,
    inputs_of,
    moved_rows,
    renumbered,
    rows,
    same_maps,
    sample_inputs,
    shuffle,
    tatar_tokenizer,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, Tables, TransferInputs, clp, omp, salt, sava
from vocabtransfer.initialization.donor import DONOR, match_donor
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.vocabulary import Kind

NAMES = ("omp", "clp", "clp_plus", "sava", "salt")
FUNCTIONS = {"omp": omp.omp, "clp": clp.clp, "clp_plus": clp.clp_plus, "sava": sava.sava, "salt": salt.salt}


@pytest.fixture(scope="module")
def english() -> PreTrainedTokenizerFast:
    return english_tokenizer()


@pytest.fixture(scope="module")
def tatar() -> PreTrainedTokenizerFast:
    return tatar_tokenizer()


@pytest.fixture(scope="module")
def inputs() -> TransferInputs:
    return sample_inputs()


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
