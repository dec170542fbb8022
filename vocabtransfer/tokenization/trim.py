"""Trim a vocabulary to the tokens that a corpus uses; text of any kind can still be written with what is left."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.tokenization.carry import kept_specials
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.ragged import IntArray
from vocabtransfer.tokenization.reshape import Reshaped, Shape, check_new, put_together, take_apart, with_notes_on
from vocabtransfer.tokenization.train_bpe import SIZE_FOR_DIGIT_GROUPS
from vocabtransfer.tokenization.train_corpus import Corpus, CorpusLike
from vocabtransfer.tokenization.trim_order import Order, protected_ids, removal_order


@public
def trim_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    corpus: CorpusLike,
    *,
    keep: int | None = None,
    drop_unused: bool = False,
    keep_reserved: bool = True,
) -> Reshaped:
    """Drop the tokens that ``corpus`` uses least, or never; ids close up, in their old order.

    A BPE token goes only when no kept token is merged from it (leaf-first pruning, Purason et al. 2025,
    arXiv 2512.03989), so every token left is reached as before. Special and added tokens, the tokens that the chat
    template writes, all bytes (or characters), printable ASCII and short runs of whitespace stay, and groups of digits
    in vocabularies of 16,000 tokens or more.

    Args:
        tokenizer: byte-level BPE, SentencePiece-style BPE, Unigram or WordPiece.
        corpus: lines of text, streamed and read once, or a mapping from words to counts. It should hold everything the
            model is to be good at: text in other languages takes more tokens afterwards.
        keep: the length of the result.
        drop_unused: instead of a length: drop what is never used. The corpus is then cut exactly as before.
        keep_reserved: keep tokens reserved for later (``<|reserved_special_token_7|>``, ``<unused42>``).

    Raises:
        UsageError: neither or both of ``keep`` and ``drop_unused``, a length below what must be kept (the message names
            the minimum), or a tokenizer of another kind.
        VocabTransferError: the corpus is empty or holds something that is not text.
    """
    if (keep is None) is not drop_unused:
        raise UsageError("Say either how many tokens to keep or to drop the unused ones.")
    if keep is not None:
        check_new(keep, "The number of tokens to keep")
    shape = take_apart(tokenizer)
    watched = WatchedCorpus(corpus)
    watched.watch(tokenizer)
    removals = order_removals(shape, watched.usage(), keep_reserved=keep_reserved, size=keep)
    shape = with_notes_on(shape, watched)
    return trimmed(shape, removals, removals.until(keep) if keep is not None else removals.unused)


class WatchedCorpus(Corpus):
    """A corpus that counts, while it is read, how often a tokenizer uses each of its tokens."""

    def watch(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Say which tokenizer; before anything is read."""
        self._tokenizer = tokenizer
        self._usage = np.zeros(1 + max(tokenizer.get_vocab().values()), np.int64)

    def batches(self, *, cut: bool = False) -> Iterator[list[str]]:
        """Yield the lines in lists (once); see `Corpus.batches`."""
        backend = self._tokenizer.backend_tokenizer
        for batch in super().batches(cut=cut):
            rows = [encoding.ids for encoding in backend.encode_batch_fast(batch, add_special_tokens=False)]
            ids = np.fromiter(chain.from_iterable(rows), np.int64)
            self._usage += np.bincount(ids, minlength=len(self._usage))
            yield batch

    def usage(self) -> IntArray:
        """Return how often each id was used, int64 (V,); reads what is left of the lines."""
        if self.words is not None:
            pieces = PieceEncoder(self._tokenizer).encode_words(list(self.words))
            weights = np.repeat(np.fromiter(self.words.values(), np.int64), np.diff(pieces.indptr))
            usage = np.zeros_like(self._usage)
            np.add.at(usage, pieces.ids, weights)
            return usage
        with step("counting tokens"):
            for _ in self.batches():
                pass
        return self._usage


@dataclass(frozen=True, eq=False)
class Removals:
    """Which ids of a vocabulary can go, in which order: ``size`` counts its tokens, ``dropped`` goes in any case."""

    order: Order
    size: int
    dropped: IntArray

    @property
    def unused(self) -> int:
        """The number of tokens that can go without any change to how the corpus is cut."""
        return int(np.argmax(np.append(self.order.uses, 1) > 0))

    @property
    def smallest(self) -> int:
        """The number of tokens that stay whatever is removed."""
        return self.size - len(self.dropped) - len(self.order.ids)

    def until(self, size: int) -> int:
        """Return how many to remove for a vocabulary of that size; `UsageError` if it cannot be that small."""
        if size < self.smallest:
            raise UsageError(
                f"A vocabulary of {size:,} has no room for the special tokens, bytes and characters that must stay: "
                f"ask for at least {self.smallest:,}."
            )
        return max(0, self.size - len(self.dropped) - size)


def order_removals(shape: Shape, usage: IntArray, *, keep_reserved: bool, size: int | None) -> Removals:
    """Order the tokens that can go by their use in a corpus, int64 (V,); ``size`` is what the result is meant to have."""
    all_specials = kept_specials(shape.tokenizer, shape.document, keep_reserved=True).contents
    specials = kept_specials(shape.tokenizer, shape.document, keep_reserved=keep_reserved).contents
    ids = shape.ids
    dropped = np.array(sorted(ids[text] for text in all_specials - specials), np.int64)
    groups = size is None or size >= SIZE_FOR_DIGIT_GROUPS
    protected = protected_ids(shape, len(usage), specials, digit_groups=groups)
    protected[list(template_ids(shape.tokenizer))] = True
    protected[dropped] = True
    with step("ordering tokens by use"):
        return Removals(removal_order(shape, usage, protected), len(ids), dropped)


_ROLES = ("system", "user", "assistant", "tool")
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")


def template_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Return the ids of the tokens that a chat is put together from: names of roles, fixed sentences, line breaks.

    They are what the template writes around short messages, and every text that it has between quotation marks.
    """
    template = tokenizer.chat_template
    if not template:
        return set()
    sources = list(template.values()) if isinstance(template, dict) else [template]
    texts = list(_ROLES)
    for source in sources:
        texts += [(a or b).replace("\\n", "\n") for a, b in _LITERAL.findall(source)]
        for roles in (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant")):
            chat = [{"role": role, "content": "a"} for role in roles]
            # A template is somebody's program: it may refuse a chat in any way it likes.
            with contextlib.suppress(Exception):
                texts.append(
                    str(tokenizer.apply_chat_template(chat, source, tokenize=False, add_generation_prompt=True))
                )
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return set(chain.from_iterable(encoding.ids for encoding in encodings))


def trimmed(shape: Shape, removals: Removals, count: int) -> Reshaped:
    """Put the tokenizer together that lacks the first ``count`` tokens of the order."""
    gone = np.concatenate([removals.dropped, removals.order.ids[:count]])
    old = shape.ids
    kept = np.setdiff1d(np.fromiter(old.values(), np.int64), gone)
    numbers = {int(i): place for place, i in enumerate(kept)}
    ids = {text: numbers[i] for text, i in old.items() if i in numbers}
    notes = [*shape.notes, f"{len(gone):,} of {len(old):,} tokens were dropped."]
    if removals.order.costs[:count].any():
        more = int(removals.order.costs[:count].sum())
        notes.append(f"The text it was trimmed for takes about {more:,} tokens more than before.")
    model, scores = _model_without(shape, ids)
    return Reshaped(put_together(shape, ids, model, notes, scores), kept, tuple(notes))


def _model_without(shape: Shape, ids: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, float]]:
    model = dict(shape.document["model"])
    if shape.kind in ("bpe", "sentencepiece"):
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left in ids and right in ids and left + right in ids
        ]  # fmt: skip
    if shape.kind != "unigram":
        return model, {}
    unknown = model["unk_id"]
    if unknown is not None:
        model["unk_id"] = ids[model["vocab"][unknown][0]]
    return model, {text: score for text, score in model["vocab"] if text in ids}
