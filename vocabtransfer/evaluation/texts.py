"""Documents out of text files, and batches of them encoded: what everything that measures text starts with."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.files.text_files import read_lines

DOCUMENT_CHARACTERS = 1 << 14
_BATCH_ITEMS = 1024
_BATCH_CHARACTERS = 1 << 19


def read_documents(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the documents of UTF-8 text files, plain or compressed, without holding a file in memory.

    A document is a run of lines without an empty line between them, joined by line feeds. It ends early, at the end of
    a line, once it has 16,384 characters. Raises `VocabTransferError` for files that are missing, binary or not UTF-8.
    """
    for path in paths:
        lines: list[str] = []
        characters = 0
        for _, line in read_lines(path):
            if line.strip():
                lines.append(line)
                characters += len(line) + 1
            if lines and (characters > DOCUMENT_CHARACTERS or not line.strip()):
                yield "\n".join(lines)
                lines, characters = [], 0
        if lines:
            yield "\n".join(lines)


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
