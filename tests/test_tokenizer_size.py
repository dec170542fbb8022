"""The size of a vocabulary: the curve it is chosen from, and what it depends on."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from tokenizer_samples import django_lines, ids_of, made_up_text
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.size import ModelSize, choose_vocab_size
from vocabtransfer.tokenization.train import train_tokenizer

Source = Callable[[str], PreTrainedTokenizerFast]
SMALL = ModelSize(1_000_000, 576)


def text() -> list[str]:
    return django_lines("ru") + django_lines("nl")


@pytest.mark.parametrize(
    "name", ["smollm2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mistral_v3", "minilm"))]
)
def test_the_curve_is_that_of_real_vocabularies(name: str, real_tokenizer: Source) -> None:
    source, sizes = real_tokenizer(name), [1_400, 1_800, 2_400]
    choice = choose_vocab_size(text(), like=source, model=SMALL, sizes=sizes, min_count=2)
    assert [point.size for point in choice.points] == sizes and choice.size in sizes
    found = np.array([point.tokens_per_word for point in choice.points])
    trained = [train_tokenizer(text(), like=source, vocab_size=size) for size in sizes]
    real = np.array([sum(map(len, ids_of(tokenizer, text()))) for tokenizer in trained])
    # Unseen words gain a little less than those that the vocabulary was learnt from.
    assert np.all(np.abs(np.log(found[1:] / found[:-1]) - np.log(real[1:] / real[:-1])) < 0.05)
    assert np.all(np.diff(found) < 0)


def test_the_best_size_is_where_one_percent_buys_one_percent(real_tokenizer: Source) -> None:
    choice = choose_vocab_size(text(), like=real_tokenizer("smollm2"), model=SMALL)
    place = [point.size for point in choice.points].index(choice.size)
    assert 0 < place < len(choice.points) - 1 and not choice.notes
    assert choice.points[place].work == 1.0 == min(point.work for point in choice.points)
    before, after = choice.points[place], choice.points[place + 1]
    assert before.saved is not None and before.grown is not None and before.saved >= before.grown
    assert after.saved is not None and after.grown is not None and after.saved <= after.grown
    for one, other in pairwise(choice.points):
        assert other.saved == pytest.approx(np.log(one.tokens_per_word / other.tokens_per_word))
        assert other.parameters - one.parameters == 576 * (other.size - one.size)
    assert choice.facts()["points"][place]["size"] == choice.size == choice.facts()["size"]


def test_larger_models_get_larger_vocabularies(real_tokenizer: Source) -> None:
    sizes = [
        choose_vocab_size(text(), like=real_tokenizer("smollm2"), model=ModelSize(body, 576)).size
        for body in (100_000, 1_000_000, 10_000_000)
    ]
    assert sizes == sorted(set(sizes))


def test_more_text_supports_more_and_the_end_of_the_corpus_is_said(real_tokenizer: Source) -> None:
    large = ModelSize(10**12, 576)
    some, more = (
        choose_vocab_size(lines, like=real_tokenizer("smollm2"), model=large)
        for lines in (django_lines("tt"), django_lines("tt") + text())
    )
    assert 500 < some.size < more.size
    assert all("largest vocabulary that the corpus supports" in choice.notes[0] for choice in (some, more))
    # What is chosen can be trained.
    assert len(train_tokenizer(django_lines("tt"), like=real_tokenizer("smollm2"), vocab_size=some.size)) == some.size


@pytest.mark.parametrize("algorithm", ["bpe", "sentencepiece", "unigram", "wordpiece"])
def test_every_kind_has_a_curve_from_words_too(algorithm: str, real_tokenizer: Source) -> None:
    words = Counter(word for line in text() for word in line.split())
    sizes = [900, 1_500]
    choices = [
        choose_vocab_size(corpus, like=real_tokenizer("llama2"), model=SMALL, sizes=sizes, algorithm=algorithm)  # type: ignore[arg-type]
        for corpus in (words, iter(text()))
    ]
    for choice in choices:
        first, last = (point.tokens_per_word for point in choice.points)
        assert 1 < last < first < 6
    assert choices[0].points[0].tokens_per_word == pytest.approx(choices[1].points[0].tokens_per_word, rel=0.25)


def test_the_same_text_gives_the_same_curve(real_tokenizer: Source) -> None:
    choices = [choose_vocab_size(made_up_text(), like=real_tokenizer("smollm2"), model=SMALL) for _ in range(2)]
    assert choices[0] == choices[1]


def test_requests_that_cannot_be_met(real_tokenizer: Source) -> None:
    source = real_tokenizer("smollm2")
    with pytest.raises(UsageError, match="at least 273"):
        choose_vocab_size(text(), like=source, model=SMALL, sizes=[200, 2_000])
    with pytest.raises(VocabTransferError, match="too little text"):
        choose_vocab_size(["a b c"], like=source, model=SMALL)
    with pytest.raises(VocabTransferError, match="no text"):
        choose_vocab_size([""], like=source, model=SMALL)


def test_what_a_token_costs_is_read_from_a_checkpoint(tiny_llama: object) -> None:
    checkpoint = open_checkpoint(str(tiny_llama))
    size = ModelSize.of(checkpoint)
    assert size.parameters_per_token == 32  # tied: one table
    assert size.parameters(checkpoint.layout.rows) == checkpoint.parameters
