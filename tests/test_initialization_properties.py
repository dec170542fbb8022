"""What is true of every method in the registry: who has which id does not matter, nor how little there is to go by."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from donor_samples import final_rows
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vector_samples import ENGLISH, LINES, PAIRS, TATAR, pair_table, sample_inputs

from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.initialization import METHODS, Donor, Need, Part, Tables, TransferInputs
from vocabtransfer.initialization.identity import equal_tokens
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Vocabulary

# Those that run the model's body are tested with one (test_inner_lexicon.py).
ALL = sorted(name for name in METHODS if Need.BODY not in METHODS[name].needs)
#: Rows of zeros, and rows brought to other lengths, are no averages.
AVERAGES = sorted(set(ALL) - {"zero", "bil"})
HIDDEN = 12
WORDS = {word: count for _, word, count in PAIRS}
#: hewitt adds noise of a few hundred-thousandths; neighbours that are as near as each other are told apart by their ids.
NEAR = 0.02


def table_of(vocabulary: Vocabulary, salt: str) -> NDArray[np.float32]:
    """Rows that depend on what a token is, not on its id; float32 (tokens, 12)."""
    seeds = [zlib.crc32((salt + token).encode()) for token in vocabulary.strings]
    return np.stack([np.random.default_rng(seed).normal(0.5, 1, HIDDEN) for seed in seeds]).astype(np.float32)


def complete(inputs: TransferInputs, seed: int = 0) -> TransferInputs:
    """Add all that any method needs: untied tables, words, and a donor that has the target's tokens."""
    tokenizer = toy_tokenizer([f" {word}" for word in ENGLISH + TATAR], seed=seed and seed + 2)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    tables = Tables(table_of(vocabulary, "donor"), table_of(vocabulary, "donor's head"), HIDDEN)
    own = inputs.source_vocabulary
    return replace(
        inputs,
        words=WORDS,
        tables=Tables(table_of(own, "source"), table_of(own, "head"), HIDDEN),
        donor=Donor("helper", vocabulary, tables, np.ones(len(vocabulary), np.bool_)),
    )


@pytest.fixture(scope="module")
def inputs() -> TransferInputs:
    return complete(sample_inputs())


@pytest.fixture(scope="module")
def renumbered() -> TransferInputs:
    """The same with all ids of all three vocabularies in another order, id 0 being an ordinary token in each."""
    made = complete(sample_inputs(seed=5), seed=5)
    assert made.donor is not None
    for vocabulary in (made.source_vocabulary, made.target_vocabulary, made.donor.vocabulary):
        assert vocabulary.kinds[0] == 0
    return made


@pytest.mark.parametrize("part", ["input", "output"])
@pytest.mark.parametrize("name", ALL)
def test_a_row_depends_on_what_a_token_is_and_not_on_any_id(
    name: str, part: Part, inputs: TransferInputs, renumbered: TransferInputs
) -> None:
    first, second = METHODS[name](inputs), METHODS[name](renumbered)
    place = {token: i for i, token in enumerate(renumbered.target_vocabulary.strings)}
    order = np.array([place[token] for token in inputs.target_vocabulary.strings])
    assert not np.array_equal(order, np.arange(len(order)))
    np.testing.assert_allclose(final_rows(inputs, first, part), final_rows(renumbered, second, part)[order], atol=NEAR)
    # Which rule made a row, and whether it gets noise, moves with the token as well; id 0 is no exception.
    rules = [second.token_map.rule_of(i) for i in order.tolist()]
    assert [first.token_map.rule_of(i) for i in range(len(order))] == rules
    if first.noise is not None and second.noise is not None:
        np.testing.assert_array_equal(first.noise.rows, second.noise.rows[order])


@pytest.mark.parametrize("name", AVERAGES)
def test_rows_are_averages_of_trained_rows(name: str, inputs: TransferInputs) -> None:
    untrained = inputs.trained.copy()
    untrained[::7] = False
    some = replace(inputs, trained=untrained)
    made = METHODS[name](some)
    for token_map in (made.token_map, made.output_map or made.token_map):
        assert token_map.filled.all()
        ours = ~made.dense.mask if made.dense is not None else np.ones(token_map.n_target, np.bool_)
        if name == "omp":  # the coefficients of a fit have no fixed sum
            ours = token_map.rule == token_map.rule_names.index("copied")
        assert ours.any()
        np.testing.assert_allclose(token_map.row_sums()[ours], 1, atol=1e-4)
        ordinary = np.flatnonzero(token_map.rule != token_map.rule_names.index("special"))
        used = token_map.weights[ordinary].indices
        assert untrained[used[used < token_map.n_source]].all() and untrained[token_map.groups.indices].all()


@pytest.mark.parametrize("name", ALL)
def test_the_same_inputs_and_seed_give_the_same_bytes(name: str, inputs: TransferInputs) -> None:
    first, second = METHODS[name](inputs), METHODS[name](inputs)
    assert first.token_map.to_bytes() == second.token_map.to_bytes()
    for part in ("input", "output"):
        np.testing.assert_array_equal(final_rows(inputs, first, part), final_rows(inputs, second, part))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"mean", "trans_tokenization", "dictionary"}))
def test_a_vocabulary_that_the_source_has_whole_is_copied(name: str, inputs: TransferInputs) -> None:
    same = replace(
        inputs,
        target=inputs.source,
        text=lambda: LINES,
        words=dict.fromkeys(ENGLISH, 5.0),
        table=pair_table([(word, word, 5.0) for word in ENGLISH]),
    )
    made = METHODS[name](same)
    assert inputs.tables is not None
    np.testing.assert_array_equal(
        final_rows(same, made, "input"), inputs.tables.part("input")[np.arange(same.shape[1])]
    )
    assert set(made.token_map.counts_by_rule()) <= {"special", "copied"}


@pytest.mark.parametrize("name", ALL)
def test_vocabularies_without_a_common_token_still_get_rows(name: str, inputs: TransferInputs) -> None:
    trained = inputs.trained.copy()
    trained[equal_tokens(inputs).weights.indices] = False
    apart = replace(inputs, trained=trained)
    assert not equal_tokens(apart).filled.any()
    made = METHODS[name](apart)
    assert made.token_map.filled.all() and "copied" not in made.token_map.counts_by_rule()
    assert np.isfinite(final_rows(apart, made, "input")).all() and np.isfinite(final_rows(apart, made, "output")).all()


@pytest.mark.parametrize("name", sorted(set(ALL) - {"merge_tree"}))  # which refuses a tokenizer without merges
@pytest.mark.parametrize("other", ["a", "b"])
def test_vocabularies_of_one_token(name: str, other: str) -> None:
    """Its id is 0 on both sides, and its row is the source's only one whether the tokens are equal or not."""
    source, target = only_token("a"), only_token(other)
    table = np.full((1, 3), 7, np.float32)
    inputs = TransferInputs(
        source,
        target,
        np.ones(1, np.bool_),
        pair_table([("a", other, 9.0)]),
        {other: 9.0},
        tables=Tables(table, None, 3),
        text=lambda: [" ".join(other * 9)] * 9,
        source_text=lambda: [" ".join("a" * 9)] * 9,
        donor=Donor("helper", target.vocabulary, Tables(table, None, 3), np.ones(1, np.bool_)),
    )
    made = METHODS[name](inputs)
    expected = 0 if name == "zero" and other == "b" else 7
    np.testing.assert_allclose(final_rows(inputs, made, "input"), np.full((1, 3), expected), rtol=1e-3)


def only_token(character: str) -> PieceEncoder:
    """A byte-level vocabulary of one token, with id 0."""
    backend = Tokenizer(models.BPE(vocab={character: 0}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PieceEncoder(PreTrainedTokenizerFast(tokenizer_object=backend))
