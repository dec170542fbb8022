"""Bits per byte: how well a causal model predicts a text, comparable between tokenizers.

The loss of a token says little about a model when another model cuts the same text into other tokens. The sum of all
token losses over the text's UTF-8 bytes does: the bytes are the same whatever the tokenizer.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.scoring import CausalScorer, default_window
from vocabtransfer.evaluation.texts import encode_batches, limit_bytes, read_documents
from vocabtransfer.files.text import is_paths
from vocabtransfer.progress import track
from vocabtransfer.public import public
from vocabtransfer.running.streamed import run_together, waves

# Windows of several batches wait together, so that those of one length run together with little padding.
_BATCHES_WAITING = 16


@dataclass(frozen=True)
class BitsPerByte:
    """What scoring some documents gave.

    ``nats`` is the sum of the token losses; ``bytes``, ``characters`` and ``words`` (parted by white space) are those
    of the documents; ``unknown_tokens`` counts the tokenizer's unk, and ``lossy_documents`` the documents that decoding
    does not give back: their figure is too low, because what was lost was not predicted. ``window`` and ``stride`` are
    in tokens.
    """

    nats: float
    bytes: int
    characters: int
    words: int
    tokens: int
    documents: int
    unknown_tokens: int
    lossy_documents: int
    window: int
    stride: int
    seconds: float

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of the text."""
        return self.nats / math.log(2) / self.bytes

    @property
    def tokens_per_word(self) -> float:
        """Tokens for a word, words being parted by white space."""
        return self.tokens / max(self.words, 1)

    @property
    def characters_per_token(self) -> float:
        """Unicode code points in a token."""
        return self.characters / self.tokens

    @property
    def perplexity_per_token(self) -> float:
        """Perplexity, which only models with the same tokenizer can be compared by."""
        return math.exp(min(self.nats / self.tokens, 700.0))


@public
def bits_per_byte(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    documents: Iterable[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_tokens: int = 2048,
    max_bytes: int | None = None,
) -> BitsPerByte:
    """Score every token of every document exactly once and return the bits per byte.

    A token is conditioned on the document separator (bos, else eos: see `document_separator`) and on the tokens of its
    document before it: on all of them within the first ``window`` tokens, later on at least ``window - stride`` and at
    most ``window - 1`` of them. ``window`` is what the model was made for, at most 1,024; ``stride`` is half of it.
    ``batch_tokens`` are the positions run at once; it changes the speed, not the result. ``max_bytes`` ends the text
    after so many UTF-8 bytes, cutting the last document between two characters. Empty documents are skipped;
    paths are read with `read_documents`.

    Raises `VocabTransferError` when there is no text, when the model is not causal or does not fit the tokenizer, and
    when a loss is not a number; `UsageError` for a window or stride that makes no sense.
    """
    documents = read_documents(documents) if is_paths(documents) else documents
    window = default_window(model) if window is None else window
    stride = max(window // 2, 1) if stride is None else stride
    _check_window(model, window, stride, batch_tokens)
    started = time.perf_counter()
    scorer = CausalScorer(model, tokenizer)
    text = _Encoder(tokenizer)
    nats = 0.0
    encoded = text.encode(limit_bytes(documents, max_bytes))
    pieces = (piece for ids in encoded for piece in _windows(ids, scorer.separator, window, stride))
    for batches in track(waves(_batches(pieces, batch_tokens), model), "Scoring"):
        for batch, found in zip(batches, run_together(model, [scorer.call(batch) for batch in batches]), strict=True):
            for (sequence, start), losses in zip(batch, found, strict=True):
                _check_losses(losses, sequence[start:], tokenizer)
                nats += math.fsum(losses)
    if not text.tokens:
        raise VocabTransferError("There is no text to score: every document is empty.")
    return BitsPerByte(
        nats=nats,
        bytes=text.bytes,
        characters=text.characters,
        words=text.words,
        tokens=text.tokens,
        documents=text.documents,
        unknown_tokens=text.unknown_tokens,
        lossy_documents=text.lossy_documents,
        window=window,
        stride=stride,
        seconds=time.perf_counter() - started,
    )


class _Encoder:
    """Encodes documents and counts what the result reports about them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.bytes = self.characters = self.words = self.tokens = 0
        self.documents = self.unknown_tokens = self.lossy_documents = 0
        self._tokenizer = tokenizer

    def encode(self, documents: Iterable[str]) -> Iterator[NDArray[np.int64]]:
        """Yield the ids of every document, int64 (tokens,), without special tokens around them."""
        unknown = self._tokenizer.unk_token_id
        for batch, encoding in encode_batches(self._tokenizer, documents):
            # Not the tokenizer's own decode: it may "clean up" spaces before punctuation.
            decoded = self._tokenizer.backend_tokenizer.decode_batch(encoding["input_ids"], skip_special_tokens=False)
            for document, text, tokens in zip(batch, decoded, encoding["input_ids"], strict=True):
                ids = np.array(tokens, dtype=np.int64)
                self.documents += 1
                self.bytes += len(document.encode("utf-8"))
                self.characters += len(document)
                self.words += len(document.split())
                self.tokens += len(ids)
                self.unknown_tokens += int((ids == unknown).sum()) if unknown is not None else 0
                # A tokenizer may put a space before the first word; nothing is lost by that.
                self.lossy_documents += text not in (document, " " + document)
                yield ids


def _windows(
    ids: NDArray[np.int64], separator: int, window: int, stride: int
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield (separator and up to ``window`` ids, index of the first that counts) so that each id counts once."""
    end = 0
    while end < len(ids):
        scored = end
        end = min(end + (stride if end else window), len(ids))
        begin = max(end - window, 0)
        yield np.concatenate(([separator], ids[begin:end])), scored - begin + 1


def _batches(
    pieces: Iterable[tuple[NDArray[np.int64], int]], batch_tokens: int
) -> Iterator[list[tuple[NDArray[np.int64], int]]]:
    """Group windows of like length: padded, a group holds at most ``batch_tokens`` ids, or a single window."""
    waiting: list[tuple[NDArray[np.int64], int]] = []
    waiting_tokens = 0
    for piece in pieces:
        waiting.append(piece)
        waiting_tokens += len(piece[0])
        if waiting_tokens >= batch_tokens * _BATCHES_WAITING:
            yield from _grouped(waiting, batch_tokens)
            waiting, waiting_tokens = [], 0
    yield from _grouped(waiting, batch_tokens)


def _grouped(
    pieces: list[tuple[NDArray[np.int64], int]], batch_tokens: int
) -> Iterator[list[tuple[NDArray[np.int64], int]]]:
    group: list[tuple[NDArray[np.int64], int]] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece[0])):
        # The first of a group is its longest, so its length is what all are padded to.
        if group and (len(group) + 1) * len(group[0][0]) > batch_tokens:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _check_window(model: PreTrainedModel, window: int, stride: int, batch_tokens: int) -> None:
    longest = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if window < 1 or (longest and longest > 0 and window > longest):
        raise UsageError(f"A window of {window} tokens is impossible: this model takes 1 to {longest or 'any number'}.")
    if not 1 <= stride <= window:
        raise UsageError(f"A stride of {stride} is impossible: it must be from 1 to the window, {window}.")
    if batch_tokens < 1:
        raise UsageError(f"batch_tokens is {batch_tokens}: it must be at least 1.")


def _check_losses(losses: NDArray[np.float64], ids: NDArray[np.int64], tokenizer: PreTrainedTokenizerFast) -> None:
    if np.isfinite(losses).all():
        return
    worst = int(ids[np.argmin(np.isfinite(losses))])
    raise VocabTransferError(
        f"The model gives no finite probability to token {worst} ({tokenizer.convert_ids_to_tokens(worst)!r}): "
        "its tables or its body hold NaN or infinite values, or that row is padding."
    )
