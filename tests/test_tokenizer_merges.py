"""Merging and learning in arrays, against the tokenizers library and against slow and obvious code."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import TEXTS, django_lines
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from vocabtransfer.tokenization.merge_learner import LONGEST_WORD, learn_more_merges, words_to_learn_from
from vocabtransfer.tokenization.merges import Merge, MergeModel
from vocabtransfer.tokenization.save import backend_document

WORDS = st.lists(st.text("abcd", min_size=1, max_size=12), min_size=1, max_size=12)
COUNTS = st.dictionaries(st.text("abcd", min_size=1, max_size=10), st.integers(1, 20), min_size=1, max_size=12)


@st.composite
def bpe_models(draw: st.DrawFn, letters: str = "abcd") -> models.BPE:
    """Draw a model whose merges join tokens that are there already, several ways to one token included."""
    strings = list(letters)
    merges: list[Merge] = []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(strings)), draw(st.sampled_from(strings))
        if pair not in merges and len(pair[0] + pair[1]) <= 8:
            merges.append(pair)
            if pair[0] + pair[1] not in strings:
                strings.append(pair[0] + pair[1])
    ids = {text: i for i, text in enumerate(draw(st.permutations(strings)))}
    return models.BPE(ids, merges, ignore_merges=draw(st.booleans()))


def merge_model(model: models.BPE) -> MergeModel:
    return MergeModel.from_document(json.loads(Tokenizer(model).to_str()))


@settings(max_examples=60, deadline=None)
@given(bpe_models(), WORDS)
def test_words_are_cut_as_the_library_cuts_them(model: models.BPE, words: list[str]) -> None:
    pieces = merge_model(model).encode(words)
    assert [pieces[i].tolist() for i in range(len(words))] == [
        [token.id for token in model.tokenize(word)] for word in words
    ]


@settings(max_examples=50, deadline=None)
@given(bpe_models(), WORDS, st.data())
def test_the_first_merges_give_the_tokens_of_a_smaller_vocabulary(
    model: models.BPE, words: list[str], data: st.DataObject
) -> None:
    whole = merge_model(model)
    weights = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(words), max_size=len(words))), np.int64)
    curve = whole.tokens_by_merges(words, weights)
    merges: list[Any] = json.loads(Tokenizer(model).to_str())["model"]["merges"]
    for rank in range(len(merges) + 1):
        part = models.BPE({text: i for i, text in enumerate(whole.strings)}, [tuple(pair) for pair in merges[:rank]])
        expected = sum(len(part.tokenize(word)) * int(weight) for word, weight in zip(words, weights, strict=True))
        assert curve[rank] == expected


@settings(max_examples=60, deadline=None)
@given(bpe_models(), st.text("abcd", max_size=4), st.text("abcd", max_size=4))
def test_a_token_comes_about_in_one_way_whatever_stands_around_it(model: models.BPE, before: str, behind: str) -> None:
    whole = merge_model(model)
    derivations = whole.derivations()
    for i, text in enumerate(whole.strings):
        pieces = merge_model(models.BPE(dict(whole.ids), list(_pairs(whole)))).encode([text])
        assert derivations.reached[i] == (pieces[0].tolist() == [i])
        if derivations.left[i] < 0:
            continue
        parts = [whole.strings[derivations.left[i]], whole.strings[derivations.right[i]]]
        assert "".join(parts) == text
        # Without its last merge, the token falls into these two parts wherever it was found.
        others = [pair for pair in _pairs(whole) if pair != tuple(parts)]
        with_it, without = (models.BPE(dict(whole.ids), pairs) for pairs in (list(_pairs(whole)), others))
        cut = [token.value for token in with_it.tokenize(before + text + behind)]
        if cut == [*_values(with_it, before), text, *_values(with_it, behind)]:
            assert [token.value for token in without.tokenize(text)] == parts


def _pairs(model: MergeModel) -> list[Merge]:
    return [(model.strings[a], model.strings[b]) for a, b in zip(model.left, model.right, strict=True)]


def _values(model: models.BPE, text: str) -> list[str]:
    return [token.value for token in model.tokenize(text)] if text else []


@settings(max_examples=60, deadline=None)
@given(bpe_models(), COUNTS, st.integers(1, 12), st.integers(1, 4), st.integers(2, 6))
def test_learning_takes_the_most_frequent_pair_every_time(
    model: models.BPE, counts: dict[str, int], new: int, least: int, longest: int
) -> None:
    start = merge_model(model)
    words, weights = words_to_learn_from(counts)
    learnt = learn_more_merges(start.strings, start.encode(words), weights, new, longest=longest, least=least)
    assert list(zip(learnt.merges, learnt.counts.tolist(), strict=True)) == _slowly(start, counts, new, longest, least)


def _slowly(model: MergeModel, counts: dict[str, int], new: int, longest: int, least: int) -> list[tuple[Merge, int]]:
    strings = list(model.strings)
    pieces = model.encode(list(counts))
    words = [pieces[i].tolist() for i in range(len(counts))]
    found: list[tuple[Merge, int]] = []
    while len(found) < new:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in zip(words, counts.values(), strict=True):
            for pair in pairwise(word):
                pairs[pair] += count
        wanted = [
            (-count, pair)
            for pair, count in pairs.items()
            if count >= least and len(text := strings[pair[0]] + strings[pair[1]]) <= longest and text not in strings
        ]
        if not wanted:
            break
        count, (left, right) = min(wanted)
        found.append(((strings[left], strings[right]), -count))
        strings.append(strings[left] + strings[right])
        words = [_joined(word, left, right, len(strings) - 1) for word in words]
    return found


def _joined(word: list[int], left: int, right: int, product: int) -> list[int]:
    result: list[int] = []
    at = 0
    while at < len(word):
        both = word[at : at + 2] == [left, right]
        result.append(product if both else word[at])
        at += 1 + both
    return result


def test_banned_strings_and_missing_characters_are_left_alone() -> None:
    model = merge_model(models.BPE({"a": 0, "b": 1, "c": 2}, []))
    words, weights = words_to_learn_from({"abc": 3, "axb": 9})
    pieces = model.encode(words)
    assert pieces.ids.tolist() == [0, 1, 2, 0, -1, 1]
    learnt = learn_more_merges(model.strings, pieces, weights, 5, longest=9, least=1, banned={"ab"})
    assert learnt.merges == (("b", "c"), ("a", "bc")) and learnt.tokens == ("bc", "abc")
    assert pieces.ids.tolist() == [0, 1, 2, 0, -1, 1]


def test_endless_words_are_cut() -> None:
    words, weights = words_to_learn_from({"ab" * LONGEST_WORD: 2, "c": 5})
    assert list(map(len, words)) == [LONGEST_WORD, LONGEST_WORD, 1] and weights.tolist() == [2, 2, 5]


@pytest.mark.parametrize("name", ["smollm2", pytest.param("llama3", marks=pytest.mark.slow), "mistral_v3"])
def test_real_vocabularies_cut_words_as_the_library_does(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    backend = real_tokenizer(name).backend_tokenizer
    model = MergeModel.from_document(backend_document(real_tokenizer(name)))
    lines = [*django_lines("tt"), *django_lines("hi")[:300], *TEXTS]
    words: set[str] = set()
    for line in lines:
        text = backend.normalizer.normalize_str(line) if backend.normalizer is not None else line
        splitter = backend.pre_tokenizer
        words.update(piece for piece, _ in splitter.pre_tokenize_str(text)) if splitter is not None else words.add(text)
    in_order = sorted(word for word in words if word)
    pieces = model.encode(in_order)
    for i, word in enumerate(in_order):
        assert pieces[i].tolist() == [token.id for token in backend.model.tokenize(word)], word


def test_a_hundred_thousand_words_are_learnt_from() -> None:
    generator = np.random.default_rng(0)
    syllables = ["".join(chr(0x430 + c) for c in row) for row in generator.integers(0, 32, (400, 2))]
    chosen = generator.zipf(1.3, (120_000, 4)) % 400
    counts = {"".join(syllables[i] for i in row): 1 + 100_000 // (n + 1) for n, row in enumerate(chosen.tolist())}
    letters = sorted(set("".join(counts)))
    model = merge_model(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    assert len(counts) > 60_000
    words, weights = words_to_learn_from(counts)
    learnt = learn_more_merges(model.strings, model.encode(words), weights, 8_000, longest=24, least=2)
    assert len(learnt.merges) == 8_000
