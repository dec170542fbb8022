"""Give a vocabulary of a set size the tokens that a corpus has most use for: trim what it has, then extend."""

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.public import public
from vocabtransfer.tokenization.extend import extended, learn
from vocabtransfer.tokenization.reshape import Reshaped, check_new, take_apart, with_notes_on, with_repairs
from vocabtransfer.tokenization.train_corpus import CorpusLike
from vocabtransfer.tokenization.trim import Removals, WatchedCorpus, order_removals, trimmed


@public
def optimise_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    corpus: CorpusLike,
    *,
    size: int,
    keep: int | None = None,
    min_count: int = 2,
    keep_reserved: bool = False,
    repair_marks: bool = True,
) -> Reshaped:
    """Trim a vocabulary to the ``keep`` tokens that ``corpus`` uses most, then extend it to ``size``.

    Without ``keep``, old tokens give way to new ones as long as the corpus gains by it: dropping a token costs as many
    tokens as it has uses, a new one saves as many as its pair was counted, and the trade ends where both are equal.
    The corpus should hold everything that the model is to be good at; a mixture with the source's own language keeps
    that language's tokens. Other arguments are those of `trim_tokenizer` and `extend_tokenizer`.

    Raises:
        UsageError: a ``size`` that the special tokens, bytes and characters alone exceed, or ``keep`` above ``size``.
        VocabTransferError: the corpus is empty or holds something that is not text.
    """
    check_new(size, "The vocabulary size")
    check_new(min_count, "The smallest count")
    if keep is not None and not 0 < keep <= size:
        raise UsageError(f"The number of tokens to keep must be from 1 to the vocabulary size {size:,}, not {keep:,}.")
    text = WatchedCorpus(corpus)
    shape = take_apart(tokenizer, text.sample if repair_marks else "")
    text.watch(with_repairs(shape))
    counts = shape.words(text)
    removals = order_removals(shape, text.usage(), keep_reserved=keep_reserved, size=size)
    least = min_count * text.once
    if keep is None:
        learnt = learn(shape, counts, size, least)
        removed = _fair_trade(removals, learnt.gains / text.once, size)
    else:
        removed = removals.until(keep)
    smaller = trimmed(with_notes_on(shape, text), removals, removed)
    missing = size - len(smaller.kept)
    base = take_apart(smaller.tokenizer)
    if not missing:
        return smaller
    learnt = learn(base, counts, missing, least)
    larger = extended(base, learnt, missing)
    # A token may have gone as part of others and come back as one of its own.
    returned = [shape.ids.get(text, -1) for text in learnt.tokens]
    kept = np.append(smaller.kept, np.array(returned, np.int64))
    return Reshaped(larger.tokenizer, kept, (*smaller.notes, *larger.notes))


def _fair_trade(removals: Removals, gains: NDArray[np.float64], size: int) -> int:
    """Return how many tokens to remove so that what the new ones save less what the old ones cost is most.

    ``gains`` are what each new token of the untrimmed vocabulary would save, the best first, float64 (tokens,).
    """
    fewest = removals.until(size)
    room = size - (removals.size - len(removals.dropped))  # negative: so many must go before anything new comes
    removed = np.arange(fewest, len(removals.order.ids) + 1)
    saved = np.concatenate([[0.0], np.cumsum(gains)])
    cost = np.concatenate([[0], np.cumsum(removals.order.costs)])
    balance = saved[np.minimum(removed + room, len(gains))] - cost[removed]
    return int(removed[np.argmax(balance)])
