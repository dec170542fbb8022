"""Cognates: every pair that is near enough, and no other, in a fixed order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from vocabtransfer.errors import UsageError
from vocabtransfer.transliteration import cognates, find_transliterator, romanized_words
from vocabtransfer.transliteration.similar import SHORTEST


def test_words_match_across_scripts() -> None:
    tatar = ["Казан", "китап", "университет", "һәм", "су", "2024"]
    turkish = ["kitâp", "Kazan'", "üniversite", "ve", "su", "2024"]
    found = cognates(tatar, turkish, find_transliterator("tatar"), transliterator_b=find_transliterator("turkish"))
    pairs = {
        (tatar[a], turkish[b]): value for a, b, value in zip(found.first, found.second, found.similarity, strict=True)
    }
    assert pairs == {
        ("Казан", "Kazan'"): 1.0,
        ("китап", "kitâp"): 1.0,
        ("университет", "üniversite"): pytest.approx(10 / 11, abs=1e-6),
        ("су", "su"): 1.0,
    }
    matrix = found.matrix((len(tatar), len(turkish)))
    assert matrix.shape == (6, 6) and matrix[1, 0] == 1.0 and matrix.dtype == np.float32


WORDS = st.lists(st.text(alphabet="abcd", max_size=9), max_size=12, unique=True)


@settings(max_examples=80, deadline=None)
@given(a=WORDS, b=WORDS, least=st.sampled_from([0.6, 0.75, 0.8, 1.0]))
def test_no_pair_is_lost(a: list[str], b: list[str], least: float) -> None:
    found = cognates(a, b, find_transliterator("tatar"), least=least, at_most=100)
    expected = {}
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            similarity = Levenshtein.normalized_similarity(one, two)
            if one and (one == two or (min(len(one), len(two)) >= SHORTEST and similarity >= least - 1e-6)):
                expected[i, j] = similarity
    got = dict(
        zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.similarity.tolist(), strict=True)
    )
    assert got == {pair: pytest.approx(value, abs=1e-6) for pair, value in expected.items()}
    order = list(zip(found.first.tolist(), (-found.similarity).tolist(), found.second.tolist(), strict=True))
    assert order == sorted(order)


def test_several_spellings_of_one_word_all_match_and_the_best_are_kept() -> None:
    romanizer = find_transliterator("tatar")
    found = cognates(["китап"], ["kitab", "kitap", "KITAP", "kitaplar"], romanizer, at_most=2)
    assert found.second.tolist() == [1, 2] and found.similarity.tolist() == [1.0, 1.0]
    assert len(cognates([], ["a"], romanizer)) == len(cognates(["!?"], ["!?"], romanizer)) == 0


def test_arguments_are_checked() -> None:
    for options in ({"least": 0.4}, {"least": 1.1}, {"at_most": 0}):
        with pytest.raises(UsageError):
            cognates(["a"], ["b"], find_transliterator("tatar"), **options)


def test_romanized_words_fall_together() -> None:
    words, index = romanized_words(["ән", "ен", "ун"], find_transliterator("tatar", "uroman"))
    assert words == ("en", "un") and index.tolist() == [0, 0, 1]
    assert romanized_words([], find_transliterator("tatar"))[1].shape == (0,)
