"""Documents out of text files, and batches of them encoded: what everything that measures text starts with."""

from collections.abc import Iterable, Iterator
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.files.text import DOCUMENT_CHARACTERS, TextFiles, read_text

__all__ = ["DOCUMENT_CHARACTERS", "encode_batches", "limit_bytes", "read_documents"]

_BATCH_ITEMS = 1024
_BATCH_CHARACTERS = 1 << 19


def read_documents(text: TextFiles, *, field: str | None = None) -> Iterator[str]:
    """Yield the documents of text files, one or many, without holding a file in memory; see `Text.documents`."""
    return read_text(text, field=field).documents()


def limit_bytes(texts: Iterable[str], max_bytes: int | None) -> Iterator[str]:
    """Yield ``texts`` up to ``max_bytes`` UTF-8 bytes in all (None: no limit), the last cut between two characters."""
    if max_bytes is None:
        yield from texts
        return
    if max_bytes < 1:
        raise UsageError(f"max_bytes is {max_bytes}: it must be at least 1.")
    left = max_bytes
    for text in texts:
        raw = text.encode("utf-8")
        yield raw[:left].decode("utf-8", errors="ignore")
        left -= len(raw)
        if left <= 0:
            return


def encode_batches(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], *, offsets: bool = False
) -> Iterator[tuple[list[str], Any]]:
    """Yield (texts, their encoding) in batches, empty texts left out and no special tokens added around a text.

    An encoding holds ``input_ids`` and, if ``offsets`` are asked for, ``offset_mapping``, a list for every text.
    """
    for batch in _batches(texts):
        encoding = tokenizer(
            batch,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=offsets,
            verbose=False,
        )
        yield batch, encoding


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        if not text:
            continue
        batch.append(text)
        characters += len(text)
        if len(batch) == _BATCH_ITEMS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
