"""A small parallel text in two alphabets, and toy tokenizers for it, that two test files share."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from vocabtransfer.alignment.table import WordTable
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.initialization import METHODS, TransferInputs
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.train import train_tokenizer

PAIRS = [
    ("book", "китап", 40.0), ("house", "йорт", 30.0), ("file", "файл", 50.0), ("page", "бит", 9.0),
    ("books", "китаплар", 12.0), ("new", "яңа", 20.0), ("open", "ачарга", 8.0), ("word", "сүз", 15.0),
    ("big", "зур", 11.0), ("read", "укый", 7.0), ("water", "су", 6.0), ("city", "шәһәр", 13.0),
]  # fmt: skip
ENGLISH = [pair[0] for pair in PAIRS]
TATAR = [pair[1] for pair in PAIRS]


def _sentences(seed: int, count: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    lines, translated = [], []
    for _ in range(count):
        chosen = [draw.randrange(len(PAIRS)) for _ in range(draw.randint(3, 9))]
        end = draw.choice([".", "!", " (2024)", ", OK"])
        lines.append(" ".join(ENGLISH[i] for i in chosen) + end)
        translated.append(" ".join(TATAR[i] for i in chosen) + end)
    return lines, translated


#: Sentences in English, and the same word for word in Tatar.
LINES, TRANSLATED = _sentences(0, 300)


def pair_table(pairs: Sequence[tuple[str, str, float]]) -> WordTable:
    source, target = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    links = (
        np.array([source.index(pair[0]) for pair in pairs], np.int64),
        np.array([target.index(pair[1]) for pair in pairs], np.int64),
        np.array([pair[2] for pair in pairs], np.float64),
    )
    totals = (np.full(len(words), 400.0) for words in (source, target))
    return WordTable.from_pairs(source, target, links, *totals)


def sample_inputs(seed: int = 0) -> TransferInputs:
    """Toy tokenizers with all beginnings of the words, as they stand after a space; other seeds shuffle the ids."""
    source = toy_tokenizer([f" {word}" for word in ENGLISH], seed=seed)
    target = toy_tokenizer([f" {word}" for word in TATAR], seed=seed and seed + 1)
    encoder = PieceEncoder(source)
    return TransferInputs(
        encoder,
        PieceEncoder(target),
        np.ones(len(encoder.vocabulary), np.bool_),
        pair_table(PAIRS),
        text=lambda: TRANSLATED,
        source_text=lambda: LINES,
    )


def real_inputs(source: PreTrainedTokenizerFast) -> TransferInputs:
    """A real source, whose last three rows no training ever touched, and a tokenizer in its manner."""
    target = train_tokenizer(TRANSLATED, like=source, vocab_size=700)
    encoder = PieceEncoder(source)
    trained = np.ones(len(encoder.vocabulary) + 3, np.bool_)
    trained[len(encoder.vocabulary) :] = False
    return TransferInputs(
        encoder, PieceEncoder(target), trained, pair_table(PAIRS), text=lambda: TRANSLATED, source_text=lambda: LINES
    )


def averages_of_trained_rows(name: str, inputs: TransferInputs) -> TokenMap:
    """Return a method's token map after checking that every row is an average of trained rows."""
    token_map = METHODS[name](inputs).token_map
    assert token_map.filled.all()
    np.testing.assert_allclose(token_map.row_sums(), 1, atol=1e-4)
    own = token_map.weights.indices[token_map.weights.indices < token_map.n_source]
    assert inputs.trained[own].all()
    return token_map


def shuffled(inputs: TransferInputs) -> TransferInputs:
    """The same inputs with the ids of both tokenizers shuffled."""
    other = sample_inputs(seed=5)
    return replace(inputs, source=other.source, target=other.target)


def write_fasttext_model(folder: Path) -> Path:
    """A model that fastText itself wrote, with words in three alphabets."""
    import fasttext

    (folder / "text.txt").write_text("\n".join(LINES + TRANSLATED) + "\n", encoding="utf-8")
    model = fasttext.train_unsupervised(
        str(folder / "text.txt"), "cbow", dim=10, minCount=2, minn=2, maxn=5, bucket=500, thread=1, verbose=0, epoch=2
    )
    model.save_model(str(folder / "model.bin"))
    return folder / "model.bin"
