"""Small vocabularies and random tables for the methods that learn from a donor model."""

import json
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizer_samples import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.initialization import Donor, Initialization, Part, Tables, TransferInputs
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Vocabulary

Rows = NDArray[np.float32]

ENGLISH = ["the cat sat on the mat with the other cat and another hat that nobody had"] * 3
TATAR = ["Татар теле: җәй, үзәк, һәм the cat sat. Русский язык, ёж; Қазақ тілі: ғылым бар"] * 3
HIDDEN, DONOR_HIDDEN = 20, 24


def trained_on(texts: list[str], size: int, *special: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", *special]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=names, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def renumbered(tokenizer: PreTrainedTokenizerFast, new_id: NDArray[np.int64]) -> PreTrainedTokenizerFast:
    """The same tokenizer with every id changed: token ``i`` becomes ``new_id[i]``."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"] = {token: int(new_id[i]) for token, i in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        token["id"] = int(new_id[token["id"]])
    backend = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def shuffle(size: int, seed: int) -> NDArray[np.int64]:
    """New ids in random order, but for the ordinary token 300, which gets id 0."""
    order = np.random.default_rng(seed).permutation(size)
    last = int(np.flatnonzero(order == 0)[0])
    order[[last, 300]] = order[[300, last]]
    return order


def moved_rows(tables: Tables, order: NDArray[np.int64]) -> tuple[Rows, Rows]:
    """Both tables of an untied model after `renumbered`."""
    assert tables.output is not None
    old_id = np.argsort(order)
    return tables.input[old_id], tables.output[old_id]


def rows(seed: int, count: int, hidden: int) -> Rows:
    """Rows with a common direction, as trained tables have."""
    generator = np.random.default_rng(seed)
    made: Rows = (0.7 + generator.standard_normal((count, hidden))).astype(np.float32)
    return made


def donor_of(tokenizer: PreTrainedTokenizerFast, table: Rows, output: Rows | None = None) -> Donor:
    tables = Tables(table, output, table.shape[1])
    return Donor("helper", Vocabulary.from_tokenizer(tokenizer), tables, np.ones(len(table), np.bool_))


def inputs_of(
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    donor: Donor,
    table: Rows,
    output: Rows | None = None,
) -> TransferInputs:
    trained = np.ones(len(table), np.bool_)
    tables = Tables(table, output, table.shape[1])
    return TransferInputs(PieceEncoder(source), PieceEncoder(target), trained, donor=donor, tables=tables)


@cache
def english_tokenizer() -> PreTrainedTokenizerFast:
    return trained_on([*ENGLISH, *TEXTS], 420)


@cache
def tatar_tokenizer() -> PreTrainedTokenizerFast:
    return trained_on([*TATAR, *ENGLISH], 500, "<|im_start|>")


@cache
def sample_inputs() -> TransferInputs:
    """A source without Tatar, a target and a donor that have it; both models untied."""
    english, tatar = english_tokenizer(), tatar_tokenizer()
    donor = donor_of(tatar, rows(1, len(tatar), DONOR_HIDDEN), rows(2, len(tatar), DONOR_HIDDEN))
    return inputs_of(english, tatar, donor, rows(3, len(english), HIDDEN), rows(4, len(english), HIDDEN))


def final_rows(inputs: TransferInputs, made: Initialization, part: Part = "input") -> Rows:
    """The new rows as a checkpoint would get them, float32 (target tokens, hidden), but without noise."""
    assert inputs.tables is not None
    token_map = made.output_map if part == "output" and made.output_map is not None else made.token_map
    table = token_map.apply(inputs.tables.part(part))
    if made.dense is not None:
        ids = np.flatnonzero(made.dense.mask)
        table[ids] = made.dense.rows(part, ids)
    return table


def same_maps(a: TokenMap, b: TokenMap) -> bool:
    return (
        a.counts_by_rule() == b.counts_by_rule()
        and a.weights.shape == b.weights.shape
        and (a.weights != b.weights).nnz == 0
        and (a.groups != b.groups).nnz == 0
    )
