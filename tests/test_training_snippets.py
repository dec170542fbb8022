"""Snippets of text around new tokens."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_samples import new_tokenizer

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.training.snippets import SnippetChooser
from vocabtransfer.vocabulary import Vocabulary

TOKENIZER = new_tokenizer()
VOCABULARY = Vocabulary.from_tokenizer(TOKENIZER)
WORDS = st.lists(st.sampled_from(["кит", " then", " the", " дөнья", "апха", " a", "😀"]), min_size=1, max_size=60)


def ids_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


def new_rows(*words: str) -> np.ndarray:
    marked = np.zeros(len(TOKENIZER) + 5, dtype=bool)  # a table may have more rows than there are tokens
    for word in words:
        (token,) = ids_of(word)
        marked[token] = True
    return marked


@settings(max_examples=150, deadline=None)
@given(
    documents=st.lists(WORDS.map("".join), min_size=1, max_size=12),
    per_token=st.integers(1, 4),
    length=st.integers(1, 12),
)
def test_each_new_token_is_met_often_enough_and_no_snippet_is_for_nothing(
    documents: list[str], per_token: int, length: int
) -> None:
    marked = new_rows("кит", " then", " дөнья")
    available = Counter(i for text in documents for i in ids_of(text) if marked[i])
    choose = SnippetChooser(TOKENIZER, marked, per_token=per_token, length=length)
    if not available:
        with pytest.raises(VocabTransferError, match="none of the new tokens"):
            list(choose(documents))
        return
    snippets = list(choose(documents))
    assert snippets == list(choose(documents))
    joined = "\0".join(documents)
    met: Counter[int] = Counter()
    for snippet in snippets:
        assert snippet in joined
        new = {i for i in ids_of(snippet) if marked[i]}
        assert any(met[i] < per_token for i in new)
        met.update(new)
    for token, count in available.items():
        assert met[token] > 0 and (met[token] >= per_token or sum_in(snippets, token) == count)


def sum_in(snippets: list[str], token: int) -> int:
    return sum(ids_of(snippet).count(token) for snippet in snippets)


def test_snippets_begin_with_words_and_have_about_the_length() -> None:
    text = " then дөнья the" * 100
    choose = SnippetChooser(TOKENIZER, new_rows(" then"), per_token=1000, length=20)
    snippets = list(choose([text]))
    assert "".join(snippets) == text and len(snippets) > 3
    for snippet in snippets:
        ids = ids_of(snippet)
        assert VOCABULARY.word_initial[ids[0]] and 10 <= len(ids) <= 30
