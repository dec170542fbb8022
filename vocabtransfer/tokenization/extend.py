"""Extend a vocabulary for another language: every old token keeps its id, and the new ones can be reached.

Tokens that are merely added (`add_tokens`) cut words wherever they are found, and tokens copied from another vocabulary
are mostly never reached. Here a BPE vocabulary goes on learning where its training stopped (Purason et al. 2025,
arXiv 2512.03989); Unigram and WordPiece get pieces that win where they were learnt.
"""

from collections.abc import Callable, Mapping

import numpy as np
from transformers import PreTrainedTokenizerFast

from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.extend_pieces import learn_unigram, learn_wordpiece, letter_gains, missing_letters
from vocabtransfer.tokenization.merge_learner import learn_more_merges, words_to_learn_from
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.reshape import Learnt, Reshaped, Shape, check_new, opened, put_together, with_notes_on
from vocabtransfer.tokenization.train_bpe import MAX_BYTES, MAX_CHARACTERS
from vocabtransfer.tokenization.train_corpus import CorpusLike
from vocabtransfer.tokenization.train_kinds import Algorithm


@public
def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    corpus: CorpusLike,
    *,
    new_tokens: int,
    min_count: int = 2,
    repair_marks: bool = True,
) -> Reshaped:
    r"""Add ``new_tokens`` tokens for the text of ``corpus`` to a vocabulary; all old tokens keep their ids.

    BPE (byte-level and SentencePiece) learns further merges on top of its own, so text without any of the new pairs is
    cut as before. Unigram gets the pieces of a model trained on the corpus that save most tokens, with scores on the
    scale of the old ones; WordPiece gets pieces joined from those that it has. Characters of the corpus that the
    vocabulary lacks come first. Special tokens, chat template, digit scheme and pipeline stay as they are.

    Args:
        tokenizer: byte-level BPE, SentencePiece-style BPE, Unigram or WordPiece.
        corpus: lines of text, streamed and read once, or a mapping from words to counts.
        new_tokens: how many; fewer if the corpus does not support them, and then a note says so.
        min_count: a token must have been seen so often.
        repair_marks: as for `train_tokenizer`: where the tokenizer cuts words of this corpus at their combining marks,
            let words keep them. Text with marks is then cut anew.

    The same corpus gives the same tokenizer, byte for byte.

    Raises:
        UsageError: ``new_tokens`` or ``min_count`` below 1, or a tokenizer of another kind.
        VocabTransferError: the corpus is empty or holds something that is not text.
    """
    check_new(new_tokens, "The number of new tokens")
    check_new(min_count, "The smallest count")
    shape, text = opened(tokenizer, corpus, repair_marks)
    counts = shape.words(text)
    learnt = learn(shape, counts, new_tokens, min_count * text.once)
    return extended(with_notes_on(shape, text), learnt, new_tokens)


def learn(shape: Shape, counts: Mapping[str, int], new_tokens: int, least: int) -> Learnt:
    """Learn at most ``new_tokens`` tokens from counted words (see `Shape.words`), each seen ``least`` times or more."""
    with step(f"extending a {shape.kind} vocabulary"):
        return _LEARNERS[shape.kind](shape, counts, new_tokens, least)


def extended(shape: Shape, learnt: Learnt, wanted: int) -> Reshaped:
    """Put the tokenizer together that has the learnt tokens behind the old ones; ``wanted`` is for the notes."""
    old = shape.ids
    size = 1 + max(old.values())
    ids = {**old, **{text: size + place for place, text in enumerate(learnt.tokens)}}
    notes = list(shape.notes)
    if len(learnt.tokens) < wanted:
        notes.append(f"The corpus supports {len(learnt.tokens):,} of the {wanted:,} new tokens asked for.")
    tokenizer = put_together(shape, ids, learnt.model, notes, learnt.scores)
    kept = np.arange(size + len(learnt.tokens))
    kept[size:] = -1
    return Reshaped(tokenizer, kept, tuple(notes))


def _learn_merges(shape: Shape, counts: Mapping[str, int], new_tokens: int, least: int) -> Learnt:
    model = MergeModel.from_document(shape.document)
    letters = missing_letters(shape, model.ids, counts, new_tokens)
    model = model.with_merges(letters, ())
    words, weights = words_to_learn_from(counts)
    pieces = model.encode(words)
    if model.byte_ids is not None:
        pieces.ids[np.isin(pieces.ids, model.byte_ids)] = -1  # they spell rare characters and join nothing
    learnt = learn_more_merges(
        model.strings,
        pieces,
        weights,
        new_tokens - len(letters),
        longest=MAX_BYTES if shape.kind == "bpe" else MAX_CHARACTERS,
        least=least,
        banned=shape.added,
    )
    section = shape.document["model"]
    merges = [*section["merges"], *map(list, learnt.merges)]
    gains = np.concatenate([letter_gains(letters, counts), learnt.counts])
    return Learnt((*letters, *learnt.tokens), gains, {**section, "merges": merges}, {})


_LEARNERS: dict[Algorithm, Callable[[Shape, Mapping[str, int], int, int], Learnt]] = {
    "bpe": _learn_merges,
    "sentencepiece": _learn_merges,
    "unigram": learn_unigram,
    "wordpiece": learn_wordpiece,
}
