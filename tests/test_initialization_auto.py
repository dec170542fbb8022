"""The default method and tokens that two languages share: how far being spelled alike is evidence of meaning alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast
from vector_samples import pair_table

from vocabtransfer.initialization import METHODS, Tables, TransferInputs
from vocabtransfer.initialization.auto import EQUAL_LINKS, spells_source
from vocabtransfer.initialization.identity import equal_tokens
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.tokenization.trim import trim_tokenizer

#: Dutch as English sees it: "of" is "or", "die" is "that", "in" is "in".
DUTCH = {"of": 900, "die": 700, "in": 800, "Intel": 60, "van": 900, "het": 900, "boek": 80, "niet": 400, "dat": 500}
ENGLISH = {"or": 900, "that": 1200, "in": 800, "Intel": 60, "of": 900, "the": 900, "book": 80, "not": 400, "die": 20}
LINKS = [
    ("or", "of", 880.0),
    ("that", "die", 650.0),
    ("in", "in", 780.0),
    ("of", "van", 850.0),
    ("the", "het", 870.0),
    ("book", "boek", 80.0),
    ("not", "niet", 390.0),
    ("that", "dat", 480.0),
]


@pytest.fixture(scope="module")
def smollm2(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return real_tokenizer("smollm2")


def inputs_of(
    source: PreTrainedTokenizerFast, words: dict[str, int], links: Sequence[tuple[str, str, float]]
) -> TransferInputs:
    target = train_tokenizer(words, like=source, vocab_size=800)
    encoder = PieceEncoder(source)
    rows = np.random.default_rng(0).normal(0.1, 1, (len(encoder.vocabulary), 16)).astype(np.float32)
    trained = np.ones(len(rows), np.bool_)
    return TransferInputs(encoder, PieceEncoder(target), trained, pair_table(links), tables=Tables(rows, None, 16))


def test_a_false_friend_means_what_it_was_aligned_with(smollm2: PreTrainedTokenizerFast) -> None:
    inputs = inputs_of(smollm2, DUTCH, LINKS)
    assert not spells_source(inputs, equal_tokens(inputs))
    made = METHODS["auto"](inputs).token_map
    row, translation = inputs.target_vocabulary.index()[(b"of", True)], inputs.source_vocabulary.index()[(b"or", True)]
    column, weight = made.row(row)[0]
    assert column == translation and weight > 0.9
    assert made.rule_of(row) == "aligned"


@pytest.mark.parametrize("word", ["in", "Intel"])
def test_an_equal_token_is_copied_when_nothing_speaks_against_it(smollm2: PreTrainedTokenizerFast, word: str) -> None:
    inputs = inputs_of(smollm2, DUTCH, LINKS)
    made = METHODS["auto"](inputs).token_map
    key = (word.encode(), True)
    row, copied = inputs.target_vocabulary.index()[key], inputs.source_vocabulary.index()[key]
    assert made.row(row) == [(copied, 1.0)] and made.rule_of(row) == "copied"


def test_a_few_links_do_not_outweigh_an_equal_token(smollm2: PreTrainedTokenizerFast) -> None:
    few = EQUAL_LINKS / 10
    inputs = inputs_of(smollm2, DUTCH, [("or", "of", few) if link[1] == "of" else link for link in LINKS])
    made = METHODS["auto"](inputs).token_map
    key = (b"of", True)
    assert made.row(inputs.target_vocabulary.index()[key]) == [(inputs.source_vocabulary.index()[key], 1.0)]


def test_a_vocabulary_of_both_languages_keeps_all_equal_tokens(smollm2: PreTrainedTokenizerFast) -> None:
    inputs = inputs_of(smollm2, DUTCH | ENGLISH, LINKS)
    equal = equal_tokens(inputs)
    assert spells_source(inputs, equal)
    made = METHODS["auto"](inputs).token_map
    for row in np.flatnonzero(equal.filled).tolist():
        assert made.row(row) == equal.row(row) and made.rule_of(row) == "copied"
    # The words that English lacks are still made of their translations.
    row = inputs.target_vocabulary.index()[(b"niet", True)]
    assert inputs.source_vocabulary.key(made.row(row)[0][0]) == (b"not", True)


@pytest.mark.parametrize("how", ["extended", "trimmed"])
def test_what_an_extended_or_trimmed_vocabulary_kept_keeps_its_rows(smollm2: PreTrainedTokenizerFast, how: str) -> None:
    changed = (
        extend_tokenizer(smollm2, {" boekenkast": 90, " vensterbank": 80}, new_tokens=12)
        if how == "extended"
        else trim_tokenizer(smollm2, DUTCH, keep=2_000)
    )
    dutch = inputs_of(smollm2, DUTCH, LINKS)
    inputs = replace(dutch, target=PieceEncoder(changed.tokenizer))
    equal = equal_tokens(inputs)
    made = METHODS["auto"](inputs).token_map
    rows = np.flatnonzero(equal.filled)
    assert len(rows) >= 1_900 and [made.row(i) for i in rows.tolist()] == [equal.row(i) for i in rows.tolist()]
