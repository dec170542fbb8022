"""Dictionary transfer: the words of a dictionary are cut ever shorter until every piece has had its turn."""

from collections.abc import Callable

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from vocabtransfer.alignment.dictionary import dictionary_table
from vocabtransfer.initialization import METHODS, TransferInputs
from vocabtransfer.initialization.dictionary import SHORTER, _without
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.train import Algorithm, train_tokenizer

WORDS = {"китапханә": 60, "китап": 5, "өстәл": 40, "йорт": 30, "йортта": 30, "тәрәзә": 20}


@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "wordpiece"])
def test_removed_tokens_never_come_and_ids_stay(
    algorithm: Algorithm, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    like = real_tokenizer("minilm" if algorithm == "wordpiece" else "smollm2")
    tokenizer = train_tokenizer(
        WORDS, like=like, vocab_size=400, algorithm=None if algorithm != "unigram" else algorithm
    )
    encoder = PieceEncoder(tokenizer)
    before = encoder.encode_words(list(WORDS))
    removed = np.zeros(len(encoder.vocabulary), dtype=np.bool_)
    removed[before.ids] = True
    shorter = _without(encoder, removed).encode_words(list(WORDS))
    long = [i for i in np.flatnonzero(removed).tolist() if len((encoder.vocabulary.text(i) or "").strip()) > 1]
    assert long and not set(long) & set(shorter.ids.tolist())
    for number, word in enumerate(WORDS):
        pieces = shorter.ids[shorter.indptr[number] : shorter.indptr[number + 1]].tolist()
        spelled = b"".join(encoder.vocabulary.token_bytes[i] for i in pieces).decode().strip()
        assert spelled.replace("##", "") == word or algorithm == "wordpiece"


def test_pieces_of_headwords_get_rows(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    source = real_tokenizer("smollm2")
    target = train_tokenizer(WORDS, like=source, vocab_size=400)
    encoders = PieceEncoder(source), PieceEncoder(target)
    table = dictionary_table([("library", "китапханә"), ("table", "өстәл"), ("house", "йорт"), ("window", "тәрәзә")])
    trained = np.ones(len(encoders[0].vocabulary), np.bool_)
    made = METHODS["dictionary"](TransferInputs(*encoders, trained, table=table)).token_map
    rule = dict(zip(range(made.n_target), [made.rule_names[code] for code in made.rule.tolist()], strict=True))
    strings = {encoders[1].vocabulary.text(i): i for i in range(made.n_target)}
    whole, part = strings[" китапханә"], strings[" китап"]
    assert rule[whole] == "aligned" and rule[part] == SHORTER
    (library,) = source.encode(" library")
    assert made.row(whole)[0][0] == library and made.row(part)[0][0] == library
    assert np.allclose(np.asarray(made.weights.sum(axis=1)).ravel(), 1, atol=1e-5)
