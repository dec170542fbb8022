"""What extending, trimming and optimising a vocabulary share: the result, the counted words, the tokenizer put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.reprs import brief
from vocabtransfer.tokenization.carry import (
    Specials,
    digit_group,
    finished_tokenizer,
    kept_specials,
    training_notes,
    vocabulary_ids,
)
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.train import repaired
from vocabtransfer.tokenization.train_bpe import sentencepiece_counts, with_digits_apart
from vocabtransfer.tokenization.train_corpus import Corpus, CorpusLike
from vocabtransfer.tokenization.train_kinds import Algorithm, Plan, kind_of
from vocabtransfer.tokenization.train_wordpiece import within_digit_groups

# Far below any sum of real scores: a Unigram piece that must never be found spelled out in a text.
UNREACHABLE_SCORE = -10_000.0


@dataclass(frozen=True, eq=False)
class Reshaped:
    """A tokenizer made from another one.

    ``kept`` has the old id of every new id, -1 for tokens that the old vocabulary does not have, int64 (V,): where it
    is not -1, the row of the old table is the row of the new one. ``notes`` are sentences a person should read.
    """

    tokenizer: PreTrainedTokenizerFast
    kept: NDArray[np.int64]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return brief(self, tokens=len(self.tokenizer), new_tokens=self.new_tokens)

    @property
    def new_tokens(self) -> int:
        """The number of tokens that the old vocabulary does not have."""
        return int((self.kept < 0).sum())


@dataclass(frozen=True, eq=False)
class Shape:
    """A tokenizer taken apart: its kind, its tokenizer.json (marks repaired, if so) and what there is to say about it."""

    tokenizer: PreTrainedTokenizerFast
    kind: Algorithm
    plan: Plan
    notes: tuple[str, ...]

    @property
    def document(self) -> Mapping[str, Any]:
        """The tokenizer.json."""
        return self.plan.document

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every string, added tokens included."""
        added = {entry["content"]: entry["id"] for entry in self.document["added_tokens"]}
        return {**vocabulary_ids(self.document), **added}

    @cached_property
    def added(self) -> frozenset[str]:
        """The texts of all added tokens."""
        return frozenset(entry["content"] for entry in self.document["added_tokens"])

    def words(self, corpus: Corpus) -> dict[str, int]:
        """Count the stretches of a corpus that a token may lie in, as training does; sorted by string."""
        if self.kind == "bpe":
            return corpus.pretokens(with_digits_apart(self.plan), space=" ")
        if self.kind == "wordpiece":
            counts = corpus.pretokens(self.document, space="")
            return within_digit_groups(counts) if self.plan.digits is not None else counts
        return sentencepiece_counts(corpus, self.plan)


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a vocabulary is to be extended by.

    ``tokens`` in the order of their ids, ``gains`` how many tokens of the corpus each saves, int64 (tokens,); ``model``
    is the section of tokenizer.json without its vocabulary, ``scores`` has the old and new pieces of a Unigram model.
    """

    tokens: tuple[str, ...]
    gains: NDArray[np.int64]
    model: Mapping[str, Any]
    scores: Mapping[str, float]


def take_apart(tokenizer: PreTrainedTokenizerFast, sample: str = "") -> Shape:
    """Read a tokenizer; where it cuts words of ``sample`` at combining marks, repair its rules and say so.

    Raises `UsageError` for kinds that cannot be reshaped.
    """
    document = backend_document(tokenizer)
    kind = kind_of(document)
    if kind is None:
        raise UsageError(
            f"This tokenizer ({document['model']['type']}) is neither byte-level nor SentencePiece, Unigram or "
            "WordPiece and cannot be reshaped: train a new one instead."
        )
    plan = Plan(document, Specials((), (), 0), 0, digit_group(document), None, document)
    notes: list[str] = []
    if sample:
        plan, notes = repaired(plan, sample)
    return Shape(tokenizer, kind, plan, tuple(notes))


def put_together(
    shape: Shape, ids: Mapping[str, int], model: Mapping[str, Any], notes: Sequence[str], scores: Mapping[str, float]
) -> PreTrainedTokenizerFast:
    """Build the tokenizer whose tokens have the given ``ids``; ``model`` is its section without a vocabulary.

    Added tokens that ids of the model's vocabulary follow are written into that vocabulary too: the library numbers
    all others behind it, whatever their entries say. ``scores`` are those of Unigram pieces.
    """
    in_order = sorted(ids, key=ids.__getitem__)
    outside = shape.added - vocabulary_ids(shape.document).keys()
    own = [text for text in in_order if text not in outside]
    if [ids[text] for text in own] != list(range(len(own))) or len(ids) != 1 + max(ids.values()):
        own = in_order
    document = {**shape.document, "model": {**model, "vocab": _vocabulary(shape, own, ids, scores)}}
    entries = [entry for entry in document["added_tokens"] if entry["content"] in ids]
    specials = kept_specials(shape.tokenizer, {**shape.document, "added_tokens": entries}, keep_reserved=True)
    notes = list(dict.fromkeys([*training_notes(shape.tokenizer), *notes]))
    tokenizer = finished_tokenizer(
        shape.tokenizer, document, specials, notes=notes, unknown=None, same_kind=True, ids=ids
    )
    found = tokenizer.get_vocab()
    wrong = next((text for text, i in ids.items() if found.get(text) != i), None)
    if wrong is not None:
        raise VocabTransferError(
            f"The token {wrong!r} would get the id {found.get(wrong)} instead of {ids[wrong]}: this tokenizer cannot be "
            "reshaped; train a new one instead."
        )
    return tokenizer


def with_repairs(shape: Shape) -> PreTrainedTokenizerFast:
    """Return the tokenizer with the same tokens and repaired rules; itself where nothing was repaired."""
    if not shape.notes:
        return shape.tokenizer
    model = shape.document["model"]
    scores = dict(model["vocab"]) if shape.kind == "unigram" else {}
    return put_together(shape, shape.ids, model, shape.notes, scores)


def _vocabulary(
    shape: Shape, own: Sequence[str], ids: Mapping[str, int], scores: Mapping[str, float]
) -> dict[str, int] | list[tuple[str, float]]:
    if shape.kind != "unigram":
        return {text: ids[text] for text in own}
    strings = {ids[text]: text for text in own}
    # The list of a Unigram model has no holes.
    listed = (strings.get(i, f"<unused_id_{i}>") for i in range(1 + max(strings)))
    return [(text, scores.get(text, UNREACHABLE_SCORE)) for text in listed]


def check_new(number: int, what: str) -> None:
    """Raise `UsageError` for a number of tokens below 1."""
    if number < 1:
        raise UsageError(f"{what} must be at least 1, not {number}.")


def with_notes_on(shape: Shape, text: Corpus) -> Shape:
    """Return the shape with what is to be said of the text it was reshaped for, once that was read."""
    return replace(shape, notes=(*shape.notes, *text.notes(shape.document["normalizer"])))


def opened(tokenizer: PreTrainedTokenizerFast, corpus: CorpusLike, repair_marks: bool) -> tuple[Shape, Corpus]:
    """Take a tokenizer apart and open the corpus that it is to be reshaped for."""
    text = Corpus(corpus)
    return take_apart(tokenizer, text.sample if repair_marks else ""), text
