"""Initialisers over real tokenizers: every method, and the rules that come before all of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from thinned import first_of
from transformers import PreTrainedTokenizerFast

from vocabtransfer.alignment.links import token_counts, token_frequencies
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, Initialization, Need, Tables, TransferInputs, find_method
from vocabtransfer.initialization.auto import HALF_EVIDENCE
from vocabtransfer.initialization.identity import equal_tokens, special_tokens
from vocabtransfer.surgery.unigram_calibration import draw_words, unigram_shift
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.vocabulary import Kind, Scheme

WORDS = {"китап": 50, "өстәл": 30, "Интернет": 20, "house": 40, "ябык": 9, ".": 80, "файл": 300, "2024": 5}
PAIRS = (
    ("book", "китап", 40.0),
    ("table", "өстәл", 30.0),
    ("file", "файл", 300.0),
    ("house", "house", 40.0),
    (".", ".", 80.0),
)


def word_table() -> WordTable:
    source = sorted({pair[0] for pair in PAIRS})
    target = sorted(WORDS)
    links = (
        np.array([source.index(pair[0]) for pair in PAIRS]),
        np.array([target.index(pair[1]) for pair in PAIRS]),
        np.array([pair[2] for pair in PAIRS]),
    )
    totals = np.full(len(source), 400.0), np.array([float(WORDS[word]) for word in target])
    return WordTable.from_pairs(source, target, links, *totals)


@pytest.fixture(scope="module", params=first_of(["smollm2", "mistral_v3", "minilm", "tekken"], "smollm2", "minilm"))
def source(
    request: pytest.FixtureRequest, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> PreTrainedTokenizerFast:
    return real_tokenizer(request.param)


@pytest.fixture(scope="module")
def inputs(source: PreTrainedTokenizerFast) -> TransferInputs:
    target = train_tokenizer(WORDS, like=source, vocab_size=1200)
    encoder = PieceEncoder(source)
    trained = np.ones(len(encoder.vocabulary) + 3, np.bool_)
    trained[len(encoder.vocabulary) :] = False
    words = {word: float(count) for word, count in WORDS.items()}
    rows = np.random.default_rng(0).normal(0.1, 1, (len(trained), 8)).astype(np.float32)
    return TransferInputs(
        encoder,
        PieceEncoder(target),
        trained,
        word_table(),
        words,
        tables=Tables(rows, rows[::-1].copy(), 8),
        text=lambda: [" ".join(WORDS)] * 30,
        source_text=lambda: [" ".join(source for source, _, _ in PAIRS)] * 30,
    )


#: Methods that run on the inputs of this file, and those of them whose rows are averages.
HERE = sorted(name for name, method in METHODS.items() if not method.needs & {Need.DONOR, Need.BODY})
AVERAGES = sorted(set(HERE) - {"zero", "bil"})


def run(name: str, inputs: TransferInputs) -> Initialization:
    """Run a method; those along merges are skipped where the target tokenizer has none."""
    if name == "merge_tree" and inputs.target_vocabulary.scheme is Scheme.WORDPIECE:
        with pytest.raises(UsageError, match="merges"):
            METHODS[name](inputs)
        pytest.skip("WordPiece has no merges")
    return METHODS[name](inputs)


@pytest.mark.parametrize("name", AVERAGES)
def test_every_method_makes_every_row_from_trained_rows_with_weights_that_sum_to_one(
    name: str, inputs: TransferInputs
) -> None:
    token_map = run(name, inputs).token_map
    assert (token_map.n_target, token_map.n_source) == inputs.shape
    assert token_map.filled.all()
    np.testing.assert_allclose(token_map.row_sums(), 1, atol=1e-4)
    own = token_map.weights.indices[token_map.weights.indices < token_map.n_source]
    assert inputs.trained[own].all() and inputs.trained[token_map.groups.indices].all()


@pytest.mark.parametrize("name", HERE)
def test_the_same_inputs_give_the_same_bytes(name: str, inputs: TransferInputs) -> None:
    first, second = run(name, inputs), run(name, inputs)
    assert first.token_map.to_bytes() == second.token_map.to_bytes()
    if first.noise is not None and second.noise is not None:
        spread = np.ones(4, np.float32)
        whole = first.noise.draw(0, inputs.shape[0], spread)
        parts = [second.noise.draw(i, min(i + 7, inputs.shape[0]), spread) for i in range(0, inputs.shape[0], 7)]
        np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_special_tokens_keep_their_rows_by_name(inputs: TransferInputs) -> None:
    token_map = special_tokens(inputs)
    target, origin = inputs.target_vocabulary, inputs.source_vocabulary
    specials = np.flatnonzero(target.kinds == Kind.SPECIAL).tolist()
    assert specials
    for i in specials:
        ((column, weight),) = token_map.row(i)
        assert weight == 1 and origin.strings[column] == target.strings[i]


def test_copied_tokens_stand_for_the_same_bytes_at_the_same_place(inputs: TransferInputs) -> None:
    token_map = equal_tokens(inputs)
    rows = np.flatnonzero(token_map.filled).tolist()
    assert rows
    for i in rows:
        ((column, weight),) = token_map.row(i)
        assert weight == 1 and inputs.source_vocabulary.key(column) == inputs.target_vocabulary.key(i)


def test_an_aligned_word_is_made_of_its_translation_in_proportion_to_the_evidence(inputs: TransferInputs) -> None:
    token_map = METHODS["auto"](inputs).token_map
    row = inputs.target_vocabulary.index().get(("файл".encode(), True))
    assert row is not None, "a word seen 300 times is a token"
    if token_map.rule_of(row) == "copied":
        pytest.skip("this source has the word itself")
    column, weight = token_map.row(row)[0]
    assert inputs.source_vocabulary.key(column)[0] == b"file"
    assert token_map.rule_of(row) == "aligned" and token_map.evidence[row] > 200
    assert 0.8 < weight < 1


def test_little_evidence_leans_on_pieces(inputs: TransferInputs) -> None:
    thin = METHODS["auto"](inputs).token_map
    counts = inputs.counts
    assert counts is not None
    evidence = np.asarray(counts.sum(axis=1)).ravel()
    for row in np.flatnonzero((thin.rule != 0) & (evidence > 0) & (evidence < HALF_EVIDENCE)).tolist():
        assert thin.rule_of(row) != "aligned"


def test_token_counts_keep_the_mass_of_the_word_counts(inputs: TransferInputs) -> None:
    table = word_table()
    counts = token_counts(table, inputs.source, inputs.target, bare_share=0.0)
    assert counts.sum() == pytest.approx(sum(count for _, _, count in PAIRS), rel=1e-4)


def test_frequencies_count_every_piece_of_every_word(inputs: TransferInputs) -> None:
    frequencies = token_frequencies({"файл": 10.0}, inputs.target, bare_share=0.0)
    ids = inputs.target.encode_words(["файл"]).ids
    assert frequencies.sum() == pytest.approx(10 * len(ids))
    assert set(np.flatnonzero(frequencies).tolist()) == set(ids.tolist())


def test_methods_that_need_an_alignment_say_so(inputs: TransferInputs) -> None:
    bare = TransferInputs(inputs.source, inputs.target, inputs.trained)
    with pytest.raises(UsageError, match="`alignment`"):
        METHODS["trans_tokenization"](bare)
    assert METHODS["pieces"](bare).token_map.filled.all()


def test_unknown_methods_get_a_suggestion() -> None:
    assert find_method("trans-tokenization").name == "trans_tokenization"
    with pytest.raises(UsageError, match="did you mean pieces"):
        find_method("piecs")


def test_the_shift_brings_predicted_frequencies_nearer_to_the_language() -> None:
    generator = np.random.default_rng(1)
    states = (generator.normal(size=(400, 16)) + 3 * np.ones(16)).astype(np.float32)
    head = generator.normal(size=(50, 16)).astype(np.float32) * 0.3
    frequencies = generator.pareto(1.0, 50) * 100
    movable = np.ones(50, np.bool_)
    movable[:3] = False
    shift = unigram_shift(states, np.array_split(head, 3), frequencies, movable)
    wanted = frequencies[movable] / frequencies[movable].sum()

    def divergence(table: np.ndarray) -> float:
        logits = states @ table[movable].T
        predicted = np.exp(logits - logits.max(1, keepdims=True))
        predicted = (predicted / predicted.sum(1, keepdims=True)).mean(0)
        return float((wanted * np.log(wanted / predicted)).sum())

    assert divergence(head + shift.rows(0, 50)) < 0.6 * divergence(head)
    assert not shift.amounts[:3].any()


def test_drawn_words_depend_on_the_seed_alone_and_come_from_the_language() -> None:
    words = {"а": 1.0, "бу": 5.0}
    assert draw_words(words, 3) == draw_words(words, 3) != draw_words(words, 4)
    assert {word for text in draw_words(words, 3) for word in text.split()} == set(words)


def test_no_overlap_full_overlap_and_tiny_vocabularies(tiny_llama: Path) -> None:
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.surgery.transfer import transfer

    source = open_checkpoint(str(tiny_llama))
    same = transfer(source, source.tokenizer, method="pieces")
    assert set(same.token_map.counts_by_rule()) == {"special", "copied"}
    table = source.input_table().float().numpy()
    np.testing.assert_array_equal(same.rows(source.layout.tensors[0], 0, 100).numpy(), table[:100])
