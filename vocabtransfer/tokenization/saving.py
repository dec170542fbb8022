"""How few new tokens take a wanted share off the tokens of a text.

The most frequent words save most: in our runs 2,500 new tokens took 21 % off Turkish text that 6,000 took 28 % off. Each
further row is one more to be learnt, so where a model knows a language already, few are asked for.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.extend import extended, learn
from vocabtransfer.tokenization.merge_learner import words_to_learn_from
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.ragged import IntArray
from vocabtransfer.tokenization.reshape import Learnt, Shape, check_new, opened, with_repairs
from vocabtransfer.tokenization.train_corpus import Corpus, CorpusLike, checked_lines

#: Pieces that are not merges are learnt anew for every number that is tried: the search ends at so close a bracket.
CLOSE = 0.05


@dataclass(frozen=True)
class Saving:
    """A number of new tokens, and the tokens that the measured text takes without and with them."""

    new_tokens: int
    before: int
    after: int

    @property
    def share(self) -> float:
        """The share of the tokens that is saved."""
        return 1 - self.after / self.before if self.before else 0.0


@public
def tokens_that_save(
    share: float,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CorpusLike,
    held_out: Iterable[str],
    *,
    most: int,
    min_count: int = 2,
    repair_marks: bool = True,
) -> Saving:
    """Find the fewest new tokens with which `extend_tokenizer` takes ``share`` off the tokens of ``held_out``.

    One run gives the tokens that the text takes with any number of new merges, because the merges learnt first do not
    depend on those that follow. Unigram and WordPiece pieces are learnt anew for every number that is tried, and the
    answer is within 5 percent of the fewest.

    Args:
        share: what is to be saved, over 0 and below 1.
        tokenizer: the tokenizer that is to be extended or swapped.
        corpus: what new tokens are learnt from; read once.
        held_out: lines of text that the corpus does not hold.
        most: new tokens that are not exceeded; where fewer than that do not save so much, this is the answer, or what
            the corpus supports.
        min_count: as for `extend_tokenizer`.
        repair_marks: as for `extend_tokenizer`.

    Raises:
        UsageError: a share or number out of range, or a tokenizer of another kind.
        VocabTransferError: ``corpus`` or ``held_out`` has no text.
    """
    if not 0 < share < 1:
        raise UsageError(f"The share of tokens to save is over 0 and below 1, not {share:g}.")
    check_new(most, "The number of new tokens")
    check_new(min_count, "The smallest count")
    lines = list(checked_lines(held_out, "the held-out text"))
    if not lines:
        raise VocabTransferError("There is no held-out text to measure on what new tokens save: give some lines of it.")
    shape, text = opened(tokenizer, corpus, repair_marks)
    counts, least = shape.words(text), min_count * text.once
    with step("finding how few new tokens save enough"):
        if shape.kind in ("bpe", "sentencepiece"):
            return _first_that_saves(share, shape, learn(shape, counts, most, least), lines)
        before = _tokens(tokenizer, lines)

        def saved(number: int) -> Saving:
            learnt = learn(shape, counts, number, least)
            made = extended(shape, learnt, number)
            return Saving(made.new_tokens, before, _tokens(made.tokenizer, lines))

        return _bisected(share, saved, most)


def _first_that_saves(share: float, shape: Shape, learnt: Learnt, lines: list[str]) -> Saving:
    """Read the answer off the tokens of the text after every merge."""
    model = MergeModel.from_document(shape.document)
    merges = learnt.model["merges"][len(model.left) :]
    letters = learnt.tokens[: len(learnt.tokens) - len(merges)]
    words, weights = words_to_learn_from(shape.words(Corpus(lines)))
    grown = model.with_merges(letters, ()).with_merges(learnt.tokens[len(letters) :], merges)
    tokens: IntArray = grown.tokens_by_merges(words, weights)[len(model.left) :]
    # Words are counted, not what lies between them: line breaks of documents, added tokens. These stay as they are.
    before, repaired = _tokens(shape.tokenizer, lines), with_repairs(shape)
    whole = before if repaired is shape.tokenizer else _tokens(repaired, lines)
    tokens += whole - int(model.tokens_by_merges(words, weights)[-1])
    enough = np.flatnonzero(tokens <= (1 - share) * before)
    taken = int(enough[0]) if len(enough) else len(merges)
    return Saving(len(letters) + taken, before, int(tokens[taken]))


def _bisected(share: float, saved: Callable[[int], Saving], most: int) -> Saving:
    best = saved(most)
    if best.share < share:
        return best
    low, high = 0, most
    while high - low > max(1, CLOSE * high):
        middle = math.isqrt(low * high) if low else high // 4 or 1
        found = saved(middle)
        if found.share < share:
            low = middle
        else:
            best, high = found, middle
    return best


def _tokens(tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> int:
    return sum(map(len, tokenizer(lines, add_special_tokens=False)["input_ids"]))
