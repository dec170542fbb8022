"""Piece weightings, merges, baselines and lengths, checked against their formulas on a real pair of tokenizers."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, Tables, TransferInputs
from vocabtransfer.initialization.norms import check_norm, rescaled, wanted_norms
from vocabtransfer.initialization.presets import by_characters, falling, growing, halving, weighted_pieces
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.train import train_tokenizer

WORDS = {"китаплар": 90, "өстәлләр": 60, "Интернет": 40, "house": 40, "файлларны": 300}
WORD = ("файлларны".encode(), True)


@pytest.fixture(scope="module")
def inputs(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> TransferInputs:
    source = PieceEncoder(real_tokenizer("smollm2"))
    target = PieceEncoder(train_tokenizer(WORDS, like=real_tokenizer("smollm2"), vocab_size=600))
    trained = np.ones(len(source.vocabulary), np.bool_)
    generator = np.random.default_rng(0)
    rows = generator.normal(0.3, 1, (2, len(trained), 6)).astype(np.float32)
    return TransferInputs(source, target, trained, tables=Tables(rows[0], rows[1], 6))


def weights(token_map: TokenMap, inputs: TransferInputs, key: tuple[bytes, bool]) -> list[float]:
    """Weights of a token's pieces, in the order of its text (all of this word's pieces are different)."""
    row = inputs.target_vocabulary.index()[key]
    found = dict(token_map.row(row))
    ids = inputs.source.encode_bytes([inputs.target_vocabulary.context_bytes(row)]).ids.tolist()
    assert len(set(ids)) == len(ids) > 2
    return [found.get(i, 0.0) for i in ids]


@pytest.mark.parametrize(
    ("method", "side", "ratio"), [("adaptivocab", "in", np.e**2), ("adaptivocab", "out", np.e**-2)]
)
def test_adaptivocab_weights_grow_and_fall(method: str, side: str, ratio: float, inputs: TransferInputs) -> None:
    made = METHODS[method](inputs)
    token_map = made.token_map if side == "in" else made.output_map
    assert token_map is not None
    found = weights(token_map, inputs, WORD)
    assert sum(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(np.divide(found[1:], found[:-1]), ratio, rtol=1e-4)


def test_named_presets_take_the_pieces_they_say(inputs: TransferInputs) -> None:
    first, last = [1.0], [1.0]
    eeve, transplant = METHODS["eeve"](inputs), METHODS["transplant"](inputs)
    assert eeve.output_map is not None and transplant.output_map is not None
    assert weights(eeve.output_map, inputs, WORD)[:1] == first
    assert weights(transplant.token_map, inputs, WORD)[-1:] == last
    halves = weights(transplant.output_map, inputs, WORD)
    np.testing.assert_allclose(np.divide(halves[1:], halves[:-1]), 0.5, rtol=1e-5)
    assert weights(METHODS["pieces_first"](inputs).token_map, inputs, WORD)[0] == 1
    assert weights(METHODS["pieces_last"](inputs).token_map, inputs, WORD)[-1] == 1


def test_character_weights_follow_what_the_pieces_stand_for(inputs: TransferInputs) -> None:
    row = inputs.target_vocabulary.index()[WORD]
    pieces = inputs.source.encode_bytes([inputs.target_vocabulary.context_bytes(row)]).ids.tolist()
    texts = [inputs.source_vocabulary.token_bytes[i] for i in pieces]
    assert all(text.decode(errors="ignore").encode() == text for text in texts), "whole characters in this word"
    lengths = np.array([len(text.decode()) for text in texts], float)
    found = weights(weighted_pieces(inputs, by_characters), inputs, WORD)
    np.testing.assert_allclose(found, lengths / lengths.sum(), rtol=1e-5)


@pytest.mark.parametrize("weighting", [growing, falling, halving, by_characters])
def test_every_weighting_gives_rows_that_sum_to_one(weighting: object, inputs: TransferInputs) -> None:
    token_map = weighted_pieces(inputs, weighting)  # type: ignore[arg-type]
    np.testing.assert_allclose(token_map.row_sums()[token_map.filled], 1, atol=1e-5)


def test_bil_gives_input_rows_the_scripts_median_length_and_leaves_the_head(inputs: TransferInputs) -> None:
    made = METHODS["bil"](inputs)
    assert inputs.tables is not None and made.output_map is not None
    wanted = wanted_norms(inputs, made.token_map, inputs.tables.input, "script")
    rows = made.token_map.apply(inputs.tables.input)
    changed = wanted > 0
    assert changed.any()
    np.testing.assert_allclose(np.linalg.norm(rows[changed], axis=1), wanted[changed], rtol=1e-3)
    np.testing.assert_allclose(made.output_map.row_sums(), 1, atol=1e-4)
    tied = TransferInputs(inputs.source, inputs.target, inputs.trained, tables=Tables(inputs.tables.input, None, 6))
    np.testing.assert_allclose(METHODS["bil"](tied).token_map.row_sums(), 1, atol=1e-4)


def test_merge_tree_halves_at_every_merge(inputs: TransferInputs) -> None:
    token_map = METHODS["merge_tree"](inputs).token_map
    row = inputs.target_vocabulary.index()[WORD]
    assert token_map.rule_of(row) == "merged"
    found = [weight for _, weight in token_map.row(row)]
    assert sum(found) == pytest.approx(1)
    # A tree of halves: every weight is a sum of powers of one half.
    assert all((weight * 2**20) % 1 == pytest.approx(0, abs=1e-6) for weight in found)
    assert len(set(found)) > 1


def test_zero_rows_are_zero_and_hewitt_rows_hug_the_mean(inputs: TransferInputs) -> None:
    assert inputs.tables is not None
    zero = METHODS["zero"](inputs).token_map
    made = zero.apply(inputs.tables.input)
    assert not made[zero.rule == zero.rule_names.index("zero")].any()
    hewitt = METHODS["hewitt"](inputs)
    assert hewitt.dense is not None
    ids = np.flatnonzero(hewitt.dense.mask)
    rows = hewitt.dense.rows("input", ids)
    centre = inputs.tables.input[np.arange(len(inputs.trained))].mean(axis=0)
    assert np.abs(rows - centre).max() < 1e-3
    assert rows.std(axis=0).min() > 1e-6, "rows differ, so that training can part them"
    np.testing.assert_array_equal(rows[3:5], hewitt.dense.rows("input", ids[3:5]))


def test_norms_are_medians_of_the_source_and_copies_keep_theirs(inputs: TransferInputs) -> None:
    token_map = METHODS["pieces"](inputs).token_map
    assert inputs.tables is not None
    wanted = wanted_norms(inputs, token_map, inputs.tables.input, "global")
    median = np.median(np.linalg.norm(inputs.tables.input[np.arange(len(inputs.trained))], axis=1))
    np.testing.assert_allclose(np.unique(wanted), [0, median], rtol=1e-5)
    copied = np.isin(token_map.rule, [token_map.rule_names.index(name) for name in ("special", "copied")])
    assert (wanted[copied] == 0).all() and (wanted[~copied] > 0).all()
    with pytest.raises(UsageError, match="global"):
        check_norm("loud")


@given(
    rows=arrays(np.float32, (5, 3), elements=st.floats(-10, 10, width=32)),
    wanted=arrays(np.float32, 5, elements=st.sampled_from([0.0, 0.5, 3.0])),
)
def test_rescaling_changes_lengths_and_nothing_else(rows: np.ndarray, wanted: np.ndarray) -> None:
    made = rescaled(rows, wanted)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    scaled = (wanted > 0) & (lengths > 1e-30)
    np.testing.assert_array_equal(made[wanted == 0], rows[wanted == 0])
    np.testing.assert_allclose(np.linalg.norm(made[scaled].astype(np.float64), axis=1), wanted[scaled], rtol=1e-3)
    assert np.isfinite(made).all()
