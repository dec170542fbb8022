"""Train a tokenizer for another language that behaves like the source's in everything but its words."""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.carry import (
    Specials,
    digit_group,
    finished_tokenizer,
    kept_specials,
    mark_share,
    training_notes,
    with_marks_in_words,
    with_marks_kept,
)
from vocabtransfer.tokenization.joiners import SHARE_OF_JOINERS, joiner_share, loses_joiners, with_joiners_kept
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.train_bpe import train_byte_level, train_sentencepiece
from vocabtransfer.tokenization.train_corpus import Corpus, CorpusLike
from vocabtransfer.tokenization.train_kinds import ALGORITHMS, Algorithm, Plan, kind_of, switched, with_unknown_token
from vocabtransfer.tokenization.train_unigram import train_unigram
from vocabtransfer.tokenization.train_wordpiece import train_wordpiece

__all__ = ["ALGORITHMS", "Algorithm", "train_tokenizer", "training_notes"]

# Fewer marks than one in 200 letters are stray accents of a script that has letters for its sounds.
SHARE_OF_MARKS = 0.005


@public
def train_tokenizer(
    corpus: CorpusLike,
    *,
    like: PreTrainedTokenizerFast,
    vocab_size: int,
    algorithm: Algorithm | None = None,
    keep_reserved: bool = False,
    repair_marks: bool = True,
) -> PreTrainedTokenizerFast:
    r"""Train a tokenizer on ``corpus`` that keeps everything of ``like`` except its ordinary vocabulary.

    Kept: normaliser, pre-tokenizer and so the digit scheme, decoder, post-processor, special and added tokens with
    their flags and order (those before the source's first ordinary token stay first, the others come last), chat
    template, roles, padding side, maximum length. Truncation and padding are off.

    Args:
        corpus: lines of text, streamed and read once, or a mapping from words to counts. Every word of a mapping
            counts as word-initial.
        like: the source tokenizer: byte-level BPE, SentencePiece-style BPE, Unigram or WordPiece.
        vocab_size: the length of the result, special tokens included, where the corpus supports it; if it does not,
            the result is smaller and `training_notes` says so. A BPE token must have been seen twice.
        algorithm: None for the kind of ``like``; "bpe" (byte-level), "sentencepiece" (BPE with byte fallback),
            "unigram" or "wordpiece" to change the kind.
        keep_reserved: keep tokens that the source reserves for later (``<|reserved_special_token_7|>``,
            ``<unused42>``). They are dropped by default unless a role, the chat template or the post-processor names
            them.
        repair_marks: where the corpus is rich in combining marks and the source's pattern cuts words at them
            (``\p{L}+`` in Hindi or Thai), let words keep their marks; likewise keep a BERT normaliser from stripping
            marks of scripts other than Latin (Hindi vowel signs, the breve of Cyrillic й), and any normaliser from
            losing the zero-width joiners of Persian, Sinhala or Malayalam.

    The same corpus gives the same tokenizer, byte for byte, whatever the number of threads.

    Raises:
        UsageError: ``vocab_size`` is below the special tokens plus the alphabet (the message names the minimum), the
            algorithm is unknown, or ``like`` is of a kind that cannot be trained.
        VocabTransferError: the corpus is empty or holds something that is not text.
    """
    kind, plan = plan_training(like, algorithm, vocab_size, keep_reserved)
    lines = Corpus(corpus)
    notes = _reserved_note(plan.specials)
    if repair_marks:
        plan, repairs = repaired(plan, lines.sample)
        notes += repairs
    with step(f"training a {kind} tokenizer"):
        model = _TRAINERS[kind](lines, plan)
    size = len(model["vocab"]) + len(plan.specials.trailing)
    if size < vocab_size:
        notes.append(f"The corpus supports {size:,} of the {vocab_size:,} entries asked for.")
    notes += lines.notes(plan.document["normalizer"])
    document = {**plan.document, "model": model}
    same = kind == kind_of(plan.lender)
    return finished_tokenizer(like, document, plan.specials, notes=notes, unknown=plan.unknown, same_kind=same)


_TRAINERS: dict[Algorithm, Callable[[Corpus, Plan], dict[str, Any]]] = {
    "bpe": train_byte_level,
    "sentencepiece": train_sentencepiece,
    "unigram": train_unigram,
    "wordpiece": train_wordpiece,
}


def plan_training(
    like: PreTrainedTokenizerFast, algorithm: Algorithm | None, vocab_size: int, keep_reserved: bool
) -> tuple[Algorithm, Plan]:
    """Return the kind of the new tokenizer and what training works from; raises what `train_tokenizer` raises."""
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise UsageError(f"Unknown tokenizer algorithm {algorithm!r}: choose one of {', '.join(ALGORITHMS)}.")
    if vocab_size < 1:
        raise UsageError(f"The vocabulary size must be positive, not {vocab_size}.")
    source = backend_document(like)
    kind = algorithm or kind_of(source)
    if kind is None:
        raise UsageError(
            f"The source tokenizer ({source['model']['type']}) is neither byte-level nor SentencePiece, Unigram or "
            f"WordPiece and cannot be trained anew: name the algorithm of the new one, {', '.join(ALGORITHMS)}."
        )
    specials = kept_specials(like, source, keep_reserved=keep_reserved)
    digits = digit_group(source)
    document: Mapping[str, Any] = source
    if kind != kind_of(source):
        document, specials = switched(source, specials, kind, digits)
    specials, unknown = with_unknown_token(source, specials, kind, like.unk_token)
    return kind, Plan(document, specials, vocab_size - len(specials.trailing), digits, unknown, source)


def _reserved_note(specials: Specials) -> list[str]:
    if not specials.dropped:
        return []
    return [f"{specials.dropped:,} reserved tokens of the source that nothing refers to were left out."]


def repaired(plan: Plan, sample: str) -> tuple[Plan, list[str]]:
    """Change the plan where the source's rules would hurt words of this corpus: at combining marks and joiners."""
    document, notes = dict(plan.document), []
    if mark_share(sample) >= SHARE_OF_MARKS:
        words_with_marks = with_marks_in_words(document["pre_tokenizer"])
        if words_with_marks is not None:
            document["pre_tokenizer"] = words_with_marks
            notes.append("The source cuts words at combining marks; in the new tokenizer words keep their marks.")
    if mark_share(unicodedata.normalize("NFD", sample), beyond_latin=True) >= SHARE_OF_MARKS:
        keeping = with_marks_kept(document["normalizer"])
        if keeping is not None:
            document["normalizer"] = keeping
            notes.append("The source strips accents and vowel signs; the new tokenizer keeps them.")
    share = joiner_share(sample)
    if share >= SHARE_OF_JOINERS and loses_joiners(document["normalizer"]):
        passing = with_joiners_kept(document["normalizer"])
        if passing is not None:
            document["normalizer"] = passing
            notes.append(
                f"The source loses zero-width joiners, which {share:.1%} of the text's words have; the new tokenizer "
                "keeps them."
            )
    return replace(plan, document=document), notes
