"""Word vectors and what methods do with them: files, training, neighbours, rotations; WECHSEL, FOCUS, OFA."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from thinned import first_of
from transformers import PreTrainedTokenizerFast
from vector_samples import (
    LINES,
    PAIRS,
    averages_of_trained_rows,
    pair_table,
    real_inputs,
    sample_inputs,
    shuffled,
    write_fasttext_model,
)

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.initialization import METHODS, Tables, TransferInputs, VectorFiles
from vocabtransfer.initialization.bilingual_vectors import bilingual_vectors, dictionary, procrustes
from vocabtransfer.initialization.focus import combined_map, token_names
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.neighbours import nearest, softmax_weights, sparsemax_weights, unit_rows
from vocabtransfer.initialization.ofa import ofa
from vocabtransfer.initialization.token_vectors import over_words, subword_vectors, through_ngrams
from vocabtransfer.initialization.vector_files import load_word_vectors
from vocabtransfer.initialization.word_vectors import Training, train_word_vectors
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind

SMALL = Training(dim=12, epochs=2, enough=1, most_epochs=2, min_count=2, shortest=2, longest=4)
METHODS_HERE = ("wechsel", "focus", "ofa")
RELAXED = settings(deadline=None)  # the first example of a test may compile a kernel
VECTORS = arrays(np.float32, st.tuples(st.integers(1, 12), st.just(5)), elements=st.floats(-2, 2, width=32))


def definition_of_sparsemax(values: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Martins & Astudillo (2016), on one row."""
    ordered = np.sort(values.astype(np.float64))[::-1]
    sums = np.cumsum(ordered)
    support = np.flatnonzero(1 + np.arange(1, len(values) + 1) * ordered > sums)[-1] + 1
    return np.maximum(values - (sums[support - 1] - 1) / support, 0)


# --- neighbours -------------------------------------------------------------------------------------------------------


@RELAXED
@given(VECTORS, VECTORS)
def test_sparsemax_is_what_its_definition_says(queries: np.ndarray, keys: np.ndarray) -> None:
    weights = sparsemax_weights(queries, keys).toarray()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)
    expected = [definition_of_sparsemax(row) for row in queries @ keys.T]
    np.testing.assert_allclose(weights, expected, atol=1e-4)


@RELAXED
@given(VECTORS, VECTORS, st.integers(1, 4))
def test_a_support_wider_than_the_room_is_the_sparsemax_of_the_largest(
    queries: np.ndarray, keys: np.ndarray, room: int
) -> None:
    weights = sparsemax_weights(queries, keys, room).toarray()
    products = queries @ keys.T
    for row, values in zip(weights, products, strict=True):
        assert np.count_nonzero(row) <= room
        kept = np.argsort(-values, kind="stable")[:room]
        np.testing.assert_allclose(np.sort(row[row > 0]), _positive(definition_of_sparsemax(values[kept])), atol=1e-4)


def _positive(values: np.ndarray) -> np.ndarray:
    return np.sort(values[values > 0])


@RELAXED
@given(VECTORS, VECTORS, st.integers(1, 15))
def test_nearest_finds_the_largest_products_in_order(queries: np.ndarray, keys: np.ndarray, count: int) -> None:
    indices, found = nearest(queries, keys, count)
    products = np.matmul(queries, keys.T)
    assert indices.shape == (len(queries), min(count, len(keys)))
    order = np.argsort(-products, axis=1, kind="stable")[:, :count]
    np.testing.assert_allclose(found, np.take_along_axis(products, order, axis=1), atol=1e-5)
    np.testing.assert_allclose(found, np.take_along_axis(products, indices, axis=1), atol=1e-5)
    assert all(len(set(row)) == len(row) for row in indices.tolist())


def test_of_equal_neighbours_the_first_is_taken() -> None:
    keys = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    indices, _ = nearest(np.array([[1, 0]], np.float32), keys, 2)
    assert indices.tolist() == [[1, 2]]


@RELAXED
@given(VECTORS, VECTORS, st.integers(1, 12), st.floats(0.05, 2))
def test_softmax_weights_sum_to_one_and_fall_with_the_similarity(
    queries: np.ndarray, keys: np.ndarray, count: int, temperature: float
) -> None:
    indices, found = nearest(queries, keys, count)
    weights = softmax_weights(indices, found, temperature, len(keys))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)
    rows = weights.data.reshape(indices.shape)
    assert (np.diff(rows, axis=1) <= 1e-6).all()
    if indices.shape[1] > 1:
        expected = np.exp((found[:, 1].astype(np.float64) - found[:, 0]) / temperature)
        np.testing.assert_allclose(rows[:, 1], rows[:, 0] * expected, atol=1e-4)


def test_blocks_of_rows_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    queries, keys = (generator.normal(size=(size, 8)).astype(np.float32) for size in (50, 40))
    whole, sparse_whole = nearest(queries, keys, 3), sparsemax_weights(queries, keys)
    monkeypatch.setattr("vocabtransfer.initialization.neighbours.CELLS", 7 * 40)
    parts, sparse_parts = nearest(queries, keys, 3), sparsemax_weights(queries, keys)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(sparse_whole.toarray(), sparse_parts.toarray(), atol=1e-6)


def test_unit_rows_keep_zeros() -> None:
    np.testing.assert_allclose(unit_rows(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]], atol=1e-7)


# --- rotations and dictionaries ---------------------------------------------------------------------------------------


@RELAXED
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(0, 3))
def test_procrustes_recovers_a_rotation(seed: int, dim: int, wider: int) -> None:
    generator = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(generator.normal(size=(dim + wider, dim + wider)))
    points = generator.normal(size=(30, dim)).astype(np.float32)
    moved = (points @ rotation[:dim]).astype(np.float32)
    np.testing.assert_allclose(procrustes(points, moved), rotation[:dim], atol=1e-4)


def test_the_dictionary_has_pairs_that_are_each_others_best() -> None:
    table = pair_table(
        [("book", "китап", 9.0), ("book", "дәфтәр", 4.0), ("table", "өстәл", 1.0), ("desk", "өстәл", 3.0)]
    )
    assert sorted(zip(*dictionary(table), strict=True)) == [("book", "китап"), ("desk", "өстәл")]
    assert dictionary(pair_table([])) == ([], [])


@pytest.fixture(scope="module")
def fasttext_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasttext_model(tmp_path_factory.mktemp("fasttext"))


# --- vectors of tokens ------------------------------------------------------------------------------------------------


def test_token_vectors_are_means_over_the_words_that_hold_the_token(tiny: TransferInputs) -> None:
    words, vectors = ["book", "books", "house"], np.eye(3, dtype=np.float32)
    weights = np.array([3.0, 1.0, 2.0])
    found = over_words(tiny.source, words, vectors, weights)
    holds = np.zeros((len(found), 3))
    for initial in (True, False):
        for place, word in enumerate(words):
            holds[np.unique(tiny.source.encode_words([word], initial).ids), place] += weights[place]
    expected = holds / np.maximum(holds.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (expected > 0).sum(axis=1).max() > 1, "some token should occur in several words"


def test_tokens_without_a_text_have_no_vector(tiny: TransferInputs) -> None:
    trained = train_word_vectors(LINES, SMALL, 0)
    assert trained is not None
    vocabulary = tiny.source_vocabulary
    found = through_ngrams(vocabulary, trained)
    silent = [i for i in range(len(vocabulary)) if vocabulary.kinds[i] == Kind.SPECIAL or vocabulary.text(i) is None]
    assert silent and not found[silent].any()
    book = vocabulary.index()[(b"book", True)]
    np.testing.assert_allclose(found[book], trained.vectors(["book"])[0], atol=1e-7)


@pytest.mark.parametrize("name", first_of(["smollm2", "minilm", "mistral_v3", "tekken"], "smollm2", "minilm"))
def test_names_of_tokens_hold_no_white_space_and_tell_word_beginnings_apart(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    vocabulary = PieceEncoder(real_tokenizer(name)).vocabulary
    names = token_names(vocabulary)
    assert all(name.split() == [name] for i, name in enumerate(names) if vocabulary.key(i)[0])
    spelled = {}
    for i in np.flatnonzero(vocabulary.kinds == Kind.TEXT).tolist():
        text = vocabulary.key(i)[0].decode("utf-8", "ignore")
        if text.isalpha() and vocabulary.text(i) is not None:
            assert spelled.setdefault(names[i], vocabulary.key(i)) == vocabulary.key(i)


# --- the methods ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> TransferInputs:
    return sample_inputs()


@pytest.fixture(scope="module", params=first_of(["smollm2", "minilm", "mistral_v3"], "minilm"))
def real(request: pytest.FixtureRequest, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> TransferInputs:
    return real_inputs(real_tokenizer(request.param))


@pytest.mark.parametrize("name", METHODS_HERE)
def test_rows_of_real_tokenizers_are_averages_of_trained_rows(name: str, real: TransferInputs) -> None:
    token_map = averages_of_trained_rows(name, real)
    similar = [rule for rule in token_map.counts_by_rule() if rule.startswith("similar")]
    assert similar, "the method should have made some rows"
    kept = identity(real)
    assert (token_map.weights[kept.filled][:, : token_map.n_source] != kept.weights[kept.filled]).nnz == 0


@pytest.mark.parametrize("name", METHODS_HERE)
def test_permuted_ids_permute_the_rows(name: str, tiny: TransferInputs) -> None:
    first, second = METHODS[name](tiny).token_map, METHODS[name](shuffled(tiny)).token_map
    assert _by_key(tiny, first) == pytest.approx(_by_key(shuffled(tiny), second), abs=1e-4)


def _by_key(inputs: TransferInputs, token_map) -> dict[tuple, float]:
    """The weights of a map by what tokens stand for; of many neighbours as alike the ids decide, so none under 1e-3."""
    entries = token_map.weights.tocoo()
    source, target = inputs.source_vocabulary, inputs.target_vocabulary
    return {
        (target.strings[row], source.strings[column]): float(weight)
        for row, column, weight in zip(entries.row, entries.col, entries.data, strict=True)
        if column < token_map.n_source and weight > 1e-3
    }


def test_wechsel_takes_the_translations_of_a_known_space(tiny: TransferInputs, tmp_path: Path) -> None:
    """Vectors whose spaces are rotations of each other: a word's row is made of its translation first of all."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(len(PAIRS), 16)).astype(np.float32)
    rotation, _ = np.linalg.qr(generator.normal(size=(16, 16)))
    for side, words, rows in (("s", 0, points), ("t", 1, points @ rotation)):
        lines = [" ".join([pair[words], *map(str, row)]) for pair, row in zip(PAIRS, rows.tolist(), strict=True)]
        (tmp_path / side).write_text(f"{len(lines)} 16\n" + "\n".join(lines) + "\n", encoding="utf-8")
    files = VectorFiles(tmp_path / "s", tmp_path / "t")
    token_map = METHODS["wechsel"](replace(tiny, vectors=files, text=None, source_text=None)).token_map
    source, target = tiny.source_vocabulary.index(), tiny.target_vocabulary.index()
    for english, translation, _ in PAIRS:
        row = target[(translation.encode(), True)]
        weights = dict(token_map.row(row))
        assert weights[source[(english.encode(), True)]] == max(weights.values()) > 0.15
        assert token_map.rule_of(row) == "similar in word vectors"


def test_focus_combines_the_shared_tokens_that_are_alike(tiny: TransferInputs) -> None:
    copied = identity(tiny)
    target = tiny.target_vocabulary
    vectors = np.zeros((len(target), 4), np.float32)
    a, b, new = (target.index()[key] for key in ((b"a", False), (b"b", False), ("китап".encode(), True)))
    vectors[a], vectors[b], vectors[new] = [1, 0, 0, 0], [0, 1, 0, 0], [1, 0.5, 0, 0]
    made = combined_map(tiny, vectors, copied)
    assert np.flatnonzero(made.filled).tolist() == [new]
    cosines = np.array([1, 0.5]) / np.sqrt(1.25)
    weights = definition_of_sparsemax(cosines)
    found = {tiny.source_vocabulary.strings[column]: weight for column, weight in made.row(new)}
    assert found == pytest.approx({"a": weights[0], "b": weights[1]}, abs=1e-5)


def test_focus_takes_word_vectors_instead_of_text(tiny: TransferInputs, fasttext_file: Path) -> None:
    given = replace(tiny, text=None, vectors=VectorFiles(target=fasttext_file))
    made = METHODS["focus"](given).token_map
    expected = combined_map(given, subword_vectors(given.target, load_word_vectors(fasttext_file)), identity(given))
    rows = np.flatnonzero(expected.filled)
    assert len(rows)
    assert (made.weights[rows][:, : made.n_source] != expected.weights[rows]).nnz == 0


def test_ofa_of_full_rank_is_the_map_and_of_lower_rank_a_projection(tiny: TransferInputs) -> None:
    table = np.random.default_rng(0).normal(size=(tiny.shape[1], 6)).astype(np.float32)
    given = replace(tiny, tables=Tables(table, None, 6))
    plain = ofa(given)
    assert plain.dense is None
    full, reduced = ofa(given, rank=6).dense, ofa(given, rank=2).dense
    assert full is not None and reduced is not None
    ids = np.flatnonzero(full.mask)
    assert len(ids) and {plain.token_map.rule_of(i) for i in ids.tolist()} == {"similar in word vectors"}
    averages = plain.token_map.apply(table)[ids]
    np.testing.assert_allclose(full.rows("input", ids), averages, atol=1e-4)
    projected = reduced.rows("output", ids)
    assert np.linalg.matrix_rank(projected, tol=1e-3) == 2
    _, _, directions = np.linalg.svd(table.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(projected, averages @ directions[:2].T @ directions[:2], atol=1e-4)


@pytest.mark.parametrize("rank", [0, 7])
def test_ofa_refuses_ranks_that_the_table_cannot_have(rank: int, tiny: TransferInputs) -> None:
    with pytest.raises(UsageError, match="between 1 and"):
        ofa(replace(tiny, tables=Tables(np.ones((tiny.shape[1], 6), np.float32), None, 6)), rank=rank)
    with pytest.raises(UsageError, match="between 1 and"):
        ofa(replace(tiny, tables=None), rank=2)


def test_what_is_missing_is_named(tiny: TransferInputs) -> None:
    with pytest.raises(UsageError, match="`alignment`"):
        METHODS["wechsel"](replace(tiny, table=None))
    for name in ("wechsel", "ofa"):
        with pytest.raises(UsageError, match="`source_vectors`"):
            METHODS[name](replace(tiny, source_text=None))
        with pytest.raises(UsageError, match="`target_vectors`"):
            METHODS[name](replace(tiny, text=None))
    with pytest.raises(UsageError, match="`text`"):
        METHODS["focus"](replace(tiny, text=None))
    with pytest.raises(VocabTransferError, match="no word in the text of the source"):
        METHODS["wechsel"](replace(tiny, source_text=list))
    with pytest.raises(VocabTransferError, match="No word pair"):
        METHODS["ofa"](replace(tiny, table=pair_table([("nowhere", "нигде", 5.0)])))


def test_words_known_on_one_side_alone_are_no_anchors(tiny: TransferInputs) -> None:
    more = [*PAIRS, ("unheard", "китап", 1.0), ("book", "ишетелмәгән", 1.0)]
    spaces = [bilingual_vectors(replace(tiny, table=pair_table(pairs)), "wechsel") for pairs in (PAIRS, more)]
    np.testing.assert_allclose(spaces[0].rotation, spaces[1].rotation, atol=1e-5)
