"""Trans-tokenization as published: which links count, what an equal token weighs, and who is related to whom."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_samples import PAIRS, pair_table, sample_inputs

from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.initialization import METHODS, TransferInputs
from vocabtransfer.initialization.trans_tokenization import related_map
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def inputs() -> TransferInputs:
    return sample_inputs()


def made(inputs: TransferInputs) -> TokenMap:
    return METHODS["trans_tokenization"](inputs).token_map


def test_token_pairs_linked_less_than_ten_times_are_left_out(inputs: TransferInputs) -> None:
    token_map = made(inputs)
    row = inputs.target_vocabulary.index()
    assert token_map.rule_of(row["китап".encode(), True]) == "aligned", "linked 40 times"
    # 7 times: the word's tokens have other rows than its translation's.
    rare = row["укый".encode(), True]
    assert token_map.rule_of(rare) == "related tokens"
    often = replace(inputs, table=pair_table([(a, b, 10 * count) for a, b, count in PAIRS]))
    assert made(often).rule_of(rare) == "aligned"


def test_links_are_counted_by_tokens_and_not_by_words() -> None:
    """Words that are rare each share a stem that is not, as in languages with many endings."""
    source, target = PieceEncoder(toy_tokenizer([" book"])), PieceEncoder(toy_tokenizer([" kn"]))
    endings = ["a", "o", "u"]
    table = pair_table([("book", f"kn{ending}", 8.0) for ending in endings])
    inputs = TransferInputs(source, target, np.ones(len(source.vocabulary), np.bool_), table)
    row = inputs.target_vocabulary.index()
    token_map = made(inputs)
    assert token_map.rule_of(row[b"kn", True]) == "aligned"
    book = inputs.source_vocabulary.index()[b"book", True]
    assert max(token_map.row(row[b"kn", True]), key=lambda pair: pair[1])[0] == book
    for ending in endings:
        assert book not in dict(token_map.row(row[ending.encode(), False])), "linked 8 times only"


def test_an_equal_token_is_one_count_more(inputs: TransferInputs) -> None:
    source, target = inputs.source_vocabulary.index(), inputs.target_vocabulary.index()
    point = target[b".", False]
    dotted = replace(inputs, table=pair_table([*PAIRS, ("!", ".", 19.0)]))
    token_map = made(dotted)
    weights, evidence = dict(token_map.row(point)), float(token_map.evidence[point])
    assert evidence == pytest.approx(20, rel=0.05), "19 links, some of them without a space before them, and one"
    assert weights[source[b".", False]] == pytest.approx(1 / evidence)
    assert weights[source[b"!", False]] > 0.9


def test_digits_are_copied_whatever_they_are_aligned_with(inputs: TransferInputs) -> None:
    one = inputs.target_vocabulary.index()[b"1", False]
    aligned = replace(inputs, table=pair_table([*PAIRS, ("book", "1", 50.0)]))
    assert made(aligned).row(one) == [(inputs.source_vocabulary.index()[b"1", False], 1.0)]


@given(words=st.lists(st.text("ab ", min_size=1, max_size=6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_related_tokens_are_those_that_begin_with_it_and_the_longest_within_it(words: list[str], seed: int) -> None:
    vocabulary = Vocabulary.from_tokenizer(toy_tokenizer(words))
    ordinary = np.flatnonzero(vocabulary.kinds == 0)
    known = ordinary[np.random.default_rng(seed).random(len(ordinary)) < 0.5]
    token_map = TokenMap.from_pairs(known, known, (len(vocabulary), len(vocabulary)), "aligned")
    related = related_map(vocabulary, token_map)
    texts = {i: vocabulary.context_bytes(i) for i in ordinary.tolist()}
    for token in ordinary.tolist():
        text = texts[token]
        if token in known:
            assert not related.filled[token]
            continue
        within = [other for other in known.tolist() if texts[other] in text]
        places = {other: spans(texts[other], text) for other in within}
        longest = {
            other
            for other in within
            if any(not any(lies_in(span, p) for o in within if o != other for p in places[o]) for span in places[other])
        }
        expected = longest | {other for other in known.tolist() if texts[other].startswith(text)}
        assert {column for column, _ in related.row(token)} == expected
        if expected:
            assert sum(weight for _, weight in related.row(token)) == pytest.approx(1, abs=1e-5)


def spans(part: bytes, whole: bytes) -> list[tuple[int, int]]:
    return [(i, i + len(part)) for i in range(len(whole) - len(part) + 1) if whole.startswith(part, i)]


def lies_in(span: tuple[int, int], other: tuple[int, int]) -> bool:
    return other[0] <= span[0] and span[1] <= other[1] and span != other
