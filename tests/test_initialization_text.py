"""Methods that read running text: align by spans and TokAlign; edge cases of all methods that need text or vectors."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thinned import first_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vector_samples import (
    LINES,
    PAIRS,
    TRANSLATED,
    averages_of_trained_rows,
    pair_table,
    real_inputs,
    sample_inputs,
    shuffled,
)

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, TransferInputs
from vocabtransfer.initialization.cooccurrence import cooccurrence_vectors
from vocabtransfer.initialization.identity import equal_tokens
from vocabtransfer.initialization.neighbours import unit_rows
from vocabtransfer.initialization.span_align import span_counts
from vocabtransfer.initialization.tokalign import relative, shared_pivots
from vocabtransfer.initialization.token_vectors import encoded_text, text_blocks
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.ragged import SpannedPieces, row_pointers

METHODS_HERE = ("align", "tokalign")
ALL = ("align", "focus", "ofa", "tokalign", "wechsel")
RELAXED = settings(deadline=None)  # the first example of a test may compile a kernel


def spanned(lines: Sequence[Sequence[tuple[int, float, float]]], lengths: Sequence[int]) -> SpannedPieces:
    """Pieces given as (id, start, end)."""
    flat = [piece for line in lines for piece in line]
    return SpannedPieces(
        row_pointers(np.array([len(line) for line in lines])),
        np.array([piece[0] for piece in flat], np.int32),
        np.array([piece[1] for piece in flat], np.float32),
        np.array([piece[2] for piece in flat], np.float32),
        np.array(lengths, np.int32),
    )


def test_spans_of_a_case_worked_out_by_hand() -> None:
    # "abcdef": source ab|cd|ef, target a|bcd|ef, then "abc" with source abc, target ab|c, counted twice.
    source = spanned([[(0, 0, 2), (1, 2, 4), (2, 4, 6)], [(3, 0, 3)]], [6, 3])
    target = spanned([[(0, 0, 1), (1, 1, 4), (2, 4, 6)], [(2, 0, 2), (4, 2, 3)]], [6, 3])
    shares, seen = span_counts(source, target, np.array([1.0, 2.0]), (6, 4))
    expected = np.zeros((6, 4))
    expected[0, 0] = 1  # "a" lies within "ab"
    expected[1, 1] = 1  # "cd" lies within "bcd"; "ab" crosses its border
    expected[2, 2], expected[2, 3] = 1, 2  # "ef" is equal; "ab" lies within "abc", twice
    expected[4, 3] = 2
    np.testing.assert_allclose(shares.toarray(), expected)
    np.testing.assert_allclose(seen, [1, 1, 3, 0, 2, 0])


def test_pieces_that_cover_nothing_or_a_part_of_a_character() -> None:
    # A boundary space of its own covers nothing; three bytes of one character share it.
    source = spanned([[(0, 0, 0), (1, 0, 1)]], [1])
    target = spanned([[(0, 0, 1 / 3), (1, 1 / 3, 2 / 3), (2, 2 / 3, 1)]], [1])
    shares, seen = span_counts(source, target, np.ones(1), (3, 2))
    np.testing.assert_allclose(shares.toarray(), [[0, 1]] * 3)
    shares, seen = span_counts(target, source, np.ones(1), (2, 3))
    np.testing.assert_allclose(shares.toarray(), [[0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    assert seen.tolist() == [0, 1]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], list[list[tuple[int, int, int]]], list[list[tuple[int, int, int]]]]:
    """Lines of random lengths, cut at random places into tokens with random ids, twice."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    sides = []
    for size in (5, 4):
        lines = []
        for length in lengths:
            inner = draw(st.sets(st.integers(1, length - 1), max_size=6)) if length > 1 else set()
            bounds = [0, *sorted(inner), length]
            lines.append([(draw(st.integers(0, size - 1)), a, b) for a, b in pairwise(bounds)])
        sides.append(lines)
    return lengths, sides[0], sides[1]


@RELAXED
@given(cuts())
def test_spans_are_what_looking_at_every_pair_gives(case: tuple) -> None:
    lengths, source, target = case
    weight = np.arange(1.0, len(lengths) + 1)
    expected, seen = np.zeros((4, 5)), np.zeros(4)
    for line in range(len(lengths)):
        for token, start, end in target[line]:
            near = [other for other, a, b in source[line] if (start <= a and b <= end) or (a <= start and end <= b)]
            for other in near:
                expected[token, other] += weight[line] / len(near)
            seen[token] += weight[line] * bool(near)
    shares, found = span_counts(spanned(source, lengths), spanned(target, lengths), weight, (4, 5))
    np.testing.assert_allclose(shares.toarray(), expected, atol=1e-9)
    np.testing.assert_allclose(found, seen)
    np.testing.assert_allclose(shares.sum(axis=1), seen)


def test_span_counts_of_nothing_are_empty() -> None:
    shares, seen = span_counts(spanned([], []), spanned([], []), np.zeros(0), (2, 3))
    assert shares.shape == (2, 3) and shares.nnz == 0 and not seen.any()
    some = spanned([[(0, 0, 1)]], [1])
    for source, target in ((some, spanned([[]], [1])), (spanned([[]], [1]), some)):
        shares, seen = span_counts(source, target, np.ones(1), (2, 3))
        assert shares.nnz == 0 and not seen.any()


# --- align ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> TransferInputs:
    return sample_inputs()


@pytest.fixture(scope="module", params=first_of(["smollm2", "minilm", "mistral_v3"], "mistral_v3"))
def real(request: pytest.FixtureRequest, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> TransferInputs:
    return real_inputs(real_tokenizer(request.param))


@pytest.mark.parametrize("name", METHODS_HERE)
def test_rows_of_real_tokenizers_are_averages_of_trained_rows(name: str, real: TransferInputs) -> None:
    token_map = averages_of_trained_rows(name, real)
    if name == "align":
        assert token_map.counts_by_rule()["same characters"] >= 5


def test_an_aligned_word_is_made_of_the_pieces_it_has_in_text(real: TransferInputs) -> None:
    token_map = METHODS["align"](real).token_map
    row = real.target_vocabulary.index()[("китап".encode(), True)]
    if token_map.rule_of(row) == "copied":
        pytest.skip("this source has the word itself")
    # Once at the beginning of a line is enough to shift a little from the pieces after a space.
    pieces = real.source.encode_words(["китап"]).ids
    assert token_map.evidence[row] > 50
    share = sum(weight for column, weight in token_map.row(row) if column in set(pieces.tolist()))
    assert share > 0.8


def test_untrained_source_tokens_take_no_part(tiny: TransferInputs) -> None:
    row = tiny.target_vocabulary.index()[("китап".encode(), True)]
    first = METHODS["align"](tiny).token_map.row(row)
    trained = tiny.trained.copy()
    trained[first[0][0]] = False
    second = METHODS["align"](replace(tiny, trained=trained)).token_map.row(row)
    assert first[0][0] not in dict(second)
    assert sum(weight for _, weight in second) == pytest.approx(1, abs=1e-5)


def test_words_stand_in_for_text(tiny: TransferInputs) -> None:
    words = {word: float(count) for _, word, count in PAIRS}
    from_words = METHODS["align"](replace(tiny, text=None, words=words)).token_map
    from_text = METHODS["align"](replace(tiny, text=lambda: [f" {word}" for word in words])).token_map
    rows = [tiny.target_vocabulary.index()[(word.encode(), True)] for word in words]
    for row in rows:
        assert from_words.rule_of(row) == "same characters"
        assert dict(from_words.row(row)) == pytest.approx(dict(from_text.row(row)), abs=1e-5)
        assert from_words.evidence[row] > from_text.evidence[row]
    with pytest.raises(UsageError, match="`text`"):
        METHODS["align"](replace(tiny, text=None))


# --- tokalign ---------------------------------------------------------------------------------------------------------


def test_a_renamed_vocabulary_is_matched_token_by_token(tiny: TransferInputs) -> None:
    """The same tokenizer on both sides, all but some copies forbidden: each token must find itself again."""
    lines = [line for line in LINES if len(line) > 15]
    source = replace(tiny, target=tiny.source, text=lambda: lines)
    vectors, counts = cooccurrence_vectors(tiny.source, lines)
    pivots = shared_pivots(equal_tokens(source), counts, counts)
    assert len(pivots[0]) > 10 and (pivots[0] == pivots[1]).all()
    places = relative(vectors, pivots[0])
    used = np.flatnonzero(counts >= 5)
    assert (np.argmax(places[used] @ places[used].T, axis=1) == np.arange(len(used))).all()


def test_matched_tokens_are_copies_of_one_source_token(tiny: TransferInputs) -> None:
    made = METHODS["tokalign"](tiny).token_map
    matched = [row for row in range(made.n_target) if made.rule_of(row) == "used most alike"]
    assert len(matched) >= 10
    assert all([weight for _, weight in made.row(row)] == [1] for row in matched)


def test_cooccurrence_vectors_tell_contexts_apart(tiny: TransferInputs) -> None:
    text = ["read book open", "read page open"] * 40 + ["big water city", "big word city"] * 40
    vectors, counts = cooccurrence_vectors(tiny.source, [f" {line}" for line in text])
    index = tiny.source_vocabulary.index()
    book, page, water, word = (index[(text.encode(), True)] for text in ("book", "page", "water", "word"))
    units = unit_rows(vectors)
    assert units[book] @ units[page] > 0.9 > 0.2 > abs(units[book] @ units[water])
    assert units[water] @ units[word] > 0.9
    assert counts[book] == counts[page] == 40
    assert not vectors[counts == 0].any()


def test_cooccurrence_of_no_text_and_of_one_token(tiny: TransferInputs) -> None:
    for text in ([], [" ", ""], [" book"]):
        vectors, counts = cooccurrence_vectors(tiny.source, text)
        assert len(vectors) == len(counts) == tiny.shape[1] and np.isfinite(vectors).all()
        assert not vectors.any()


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS_HERE)
def test_permuted_ids_permute_the_rows(name: str, tiny: TransferInputs) -> None:
    other = shuffled(tiny)
    assert _by_key(tiny, METHODS[name](tiny).token_map) == pytest.approx(
        _by_key(other, METHODS[name](other).token_map), abs=1e-4
    )


def _by_key(inputs: TransferInputs, token_map: TokenMap) -> dict[tuple[str, str], float]:
    entries = token_map.weights.tocoo()
    source, target = inputs.source_vocabulary, inputs.target_vocabulary
    return {
        (target.strings[row], source.strings[column]): float(weight)
        for row, column, weight in zip(entries.row, entries.col, entries.data, strict=True)
        if column < token_map.n_source
    }


@pytest.mark.parametrize("name", ALL)
def test_the_same_inputs_give_the_same_bytes(name: str, tiny: TransferInputs) -> None:
    assert METHODS[name](tiny).token_map.to_bytes() == METHODS[name](tiny).token_map.to_bytes()


@pytest.mark.parametrize("name", ALL)
def test_vocabularies_that_share_everything_are_copied(name: str, tiny: TransferInputs) -> None:
    same = replace(tiny, target=tiny.source, text=lambda: LINES, table=pair_table([(w, w, 5.0) for w, _, _ in PAIRS]))
    token_map = METHODS[name](same).token_map
    assert set(token_map.counts_by_rule()) == {"special", "copied"}
    np.testing.assert_array_equal(token_map.weights[:, : same.shape[1]].toarray(), np.eye(same.shape[1]))


@pytest.mark.parametrize("name", ALL)
def test_vocabularies_that_share_nothing_still_get_rows(name: str, tiny: TransferInputs) -> None:
    shared = equal_tokens(tiny).weights.indices
    trained = tiny.trained.copy()
    trained[shared] = False
    apart = replace(tiny, trained=trained)
    assert not equal_tokens(apart).filled.any()
    token_map = METHODS[name](apart).token_map
    assert token_map.filled.all()
    np.testing.assert_allclose(token_map.row_sums(), 1, atol=1e-4)
    if name in ("focus", "tokalign"):
        assert set(token_map.counts_by_rule()) <= {"special", "pieces", "script mean", "mean"}


def one_token(character: str) -> PieceEncoder:
    """A byte-level vocabulary of one token, with id 0."""
    backend = Tokenizer(models.BPE(vocab={character: 0}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PieceEncoder(PreTrainedTokenizerFast(tokenizer_object=backend))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("other", ["a", "b"])
def test_one_token_vocabularies(name: str, other: str) -> None:
    inputs = TransferInputs(
        one_token("a"),
        one_token(other),
        np.ones(1, np.bool_),
        pair_table([("a", other, 9.0)]),
        text=lambda: [" ".join(other * 9)] * 9,
        source_text=lambda: [" ".join("a" * 9)] * 9,
    )
    token_map = METHODS[name](inputs).token_map
    assert token_map.row_sums() == pytest.approx([1])
    assert token_map.apply(np.full((1, 2), 7, np.float32)) == pytest.approx(np.full((1, 2), 7))


@pytest.mark.parametrize("name", ["align", "ofa", "tokalign"])
def test_id_0_is_an_ordinary_id(name: str) -> None:
    """With shuffled ids some text token has id 0 on either side; it takes part like any other."""
    inputs = sample_inputs(seed=5)
    assert inputs.source_vocabulary.kinds[0] == inputs.target_vocabulary.kinds[0] == 0
    first = TokenMap.from_pairs(np.array([0]), np.array([0]), inputs.shape, "copied")
    assert first.filled[0]
    text = [inputs.target_vocabulary.text(0) or "?"] * 50
    token_map = METHODS[name](replace(inputs, text=lambda: [" ".join(text), *TRANSLATED])).token_map
    assert token_map.filled[0] and token_map.row_sums()[0] == pytest.approx(1, abs=1e-5)


# --- running text -----------------------------------------------------------------------------------------------------


def test_text_comes_in_blocks_without_blank_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vocabtransfer.initialization.token_vectors.CHARACTERS_AT_ONCE", 5)
    assert list(text_blocks(["abc", "", "  ", "de", "fghijkl", "m"])) == [["abc", "de"], ["fghijkl"], ["m"]]


def test_encoded_text_is_what_the_tokenizer_makes_of_it(real: TransferInputs) -> None:
    lines = ["Зур китап, яңа йорт (2024)!", "файл"]
    ((given, pieces),) = encoded_text(real.target, lines)
    assert given == lines
    for line, row in zip(lines, (pieces[0], pieces[1]), strict=True):
        read = b"".join(real.target_vocabulary.token_bytes[i] for i in row.tolist()).decode()
        assert read.replace(" ", "").casefold() == line.replace(" ", "").casefold()
