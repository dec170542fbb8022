"""Word vectors: files of fastText and text files, training, and the vectors that n-grams give to unseen words."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_samples import LINES, TRANSLATED, write_fasttext_model

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.initialization.neighbours import unit_rows
from vocabtransfer.initialization.vector_files import load_word_vectors
from vocabtransfer.initialization.word_vectors import Ngrams, Training, WordList, WordVectors, train_word_vectors

SMALL = Training(dim=12, epochs=2, enough=1, most_epochs=2, min_count=2, shortest=2, longest=4)
RELAXED = settings(deadline=None)  # the first example of a test may compile a kernel


@pytest.fixture(scope="module")
def fasttext_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasttext_model(tmp_path_factory.mktemp("fasttext"))


def test_vectors_are_those_that_fasttext_gives(fasttext_file: Path) -> None:
    import fasttext

    model, ours = fasttext.load_model(str(fasttext_file)), load_word_vectors(fasttext_file)
    texts = [*model.get_words(), "китапханә", "unseen", "a", "ab", "日本語", "naïve", "👩‍👩‍👧", "x y"]
    assert ours.known(texts).tolist() == [text in model.get_words() for text in texts]
    texts.remove("</s>")  # its line end, for which it passes over the n-grams
    matrix, found = model.get_input_matrix(), ours.vectors(texts)
    np.testing.assert_allclose(found, [matrix[model.get_subwords(text)[1]].mean(axis=0) for text in texts], atol=1e-6)
    # This build of fastText scales what it returns to length 1.
    np.testing.assert_allclose(unit_rows(found), [model.get_word_vector(text) for text in texts], atol=1e-5)
    assert not ours.vectors([""]).any()
    counts = dict(zip(*model.get_words(include_freq=True), strict=True))
    assert dict(zip(ours.words.texts(len(ours.words)), ours.counts.tolist(), strict=True)) == counts


def test_rows_are_read_from_a_file_window_by_window(fasttext_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["китап", "house", "unseen", "日本語"]
    whole = load_word_vectors(fasttext_file).vectors(texts)
    monkeypatch.setattr("vocabtransfer.initialization.vector_files.WINDOW_BYTES", 3 * 4 * 10)
    np.testing.assert_array_equal(load_word_vectors(fasttext_file).vectors(texts), whole)


def test_text_vectors_are_read_plain_and_compressed(tmp_path: Path) -> None:
    content = "3 4\nкитап 1 2 3 4 \nnew york 0.5 -1e-2 0 1\nz 4 3 2 1\n"
    (tmp_path / "a.vec").write_text(content, encoding="utf-8")
    (tmp_path / "b.vec.gz").write_bytes(gzip.compress(content.encode()))
    for path in (tmp_path / "a.vec", tmp_path / "b.vec.gz"):
        vectors = load_word_vectors(path)
        assert vectors.words.texts(3) == ["китап", "new york", "z"] and vectors.ngrams is None
        found = vectors.vectors(["z", "nowhere", "китап", "new york"])
        np.testing.assert_allclose(found, [[4, 3, 2, 1], [0] * 4, [1, 2, 3, 4], [0.5, -0.01, 0, 1]])
        assert (np.diff(vectors.counts) < 0).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither"),
        (b"a 1 2\n", "neither"),
        (b"2 2\na 1 2\n", "damaged"),
        (b"2 2\na 1 2\nb 1\n", "line 3"),
        (b"1 2\na 1 x\n", "line 2"),
        (b"1 2\na 1 nan\n", "damaged"),
        (struct.pack("<2i", 793712314, 12), "damaged"),
        (struct.pack("<2i", 793712314, 3) + bytes(400), "version 3"),
        (gzip.compress(struct.pack("<2i", 793712314, 12) + bytes(400), mtime=0), "unpack it"),
    ],
)
def test_bad_vector_files_are_refused_in_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(VocabTransferError, match=said) as caught:
        load_word_vectors(path)
    assert str(path) in str(caught.value)


def test_models_that_are_cut_short_or_quantised_are_refused(fasttext_file: Path, tmp_path: Path) -> None:
    whole = fasttext_file.read_bytes()
    model = load_word_vectors(fasttext_file)
    matrix = model.matrix[np.arange(model.matrix.shape[0])]
    matrix_at = whole.index(matrix.tobytes())
    cut = tmp_path / "cut.bin"
    for size in (50, 70, 120, matrix_at - 3, matrix_at + matrix.nbytes - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(VocabTransferError, match="damaged"):
            load_word_vectors(cut)
    flag = matrix_at - 17
    cut.write_bytes(whole[:flag] + b"\1" + whole[flag + 1 :])
    with pytest.raises(VocabTransferError, match="quantised"):
        load_word_vectors(cut)
    with pytest.raises(VocabTransferError, match="does not exist"):
        load_word_vectors(tmp_path / "none.bin")


def test_training_depends_on_text_and_seed_alone() -> None:
    first = train_word_vectors(LINES, SMALL, 3)
    for text in (TRANSLATED, TRANSLATED[::-1]):
        train_word_vectors(text, SMALL, 3)  # pushes the first result out of memory
    again, other = train_word_vectors(iter(LINES), SMALL, 3), train_word_vectors(LINES, SMALL, 4)
    assert first is not None and again is not None and other is not None and again is not first
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert not np.array_equal(first.matrix, other.matrix)
    assert np.isfinite(first.matrix).all() and first.matrix.shape[1] == SMALL.dim


def test_training_on_nothing_gives_nothing() -> None:
    assert train_word_vectors([], SMALL, 0) is None
    assert train_word_vectors(["each word once"], replace(SMALL, words_a_count=1), 0) is None


def test_small_corpora_are_read_more_often_and_keep_rarer_words() -> None:
    training = Training(epochs=3, enough=1000, most_epochs=20, min_count=10, words_a_count=100)
    assert [training.epochs_for(size) for size in (10, 500, 1000, 10**6)] == [20, 6, 3, 3]
    assert [training.min_count_for(size) for size in (10, 500, 10**6)] == [1, 6, 10]


@RELAXED
@given(st.lists(st.text(max_size=8), max_size=12, unique=True))
def test_every_word_of_a_list_is_found_at_its_place(words: list[str]) -> None:
    listed = WordList.of(words)
    assert listed.find(listed).tolist() == list(range(len(words)))
    assert listed.texts(len(words)) == words
    assert listed.find(WordList.of(["\0 no such word"])).tolist() == [-1]


@RELAXED
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=10), min_size=1, max_size=6))
def test_unseen_words_get_the_mean_of_their_ngrams(texts: list[str]) -> None:
    buckets = 7
    matrix = np.arange(buckets * 2, dtype=np.float32).reshape(buckets, 2)
    vectors = WordVectors(WordList.of([]), np.zeros(0), matrix, Ngrams(2, 3, buckets))
    for text, found in zip(texts, vectors.vectors(texts), strict=True):
        marked = f"<{text}>"
        spans = [marked[i : i + n] for i in range(len(marked)) for n in (2, 3) if i + n <= len(marked)] if text else []
        expected = matrix[[_fnv(span) % buckets for span in spans]].mean(axis=0) if spans else np.zeros(2)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def _fnv(text: str) -> int:
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ (byte | (0xFFFFFF00 if byte >= 128 else 0))) * 16777619) & 0xFFFFFFFF
    return value
