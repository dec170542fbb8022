"""What a tokenizer makes of a text: how many tokens for a word, how many words broken, how much unknown."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.texts import encode_batches
from vocabtransfer.progress import track

# Every code point for which str.isspace holds, so that a word here is a word of str.split().
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)


@dataclass(frozen=True)
class TokenizerStatistics:
    """Counts over a text. Words are parted by white space, so a word keeps its punctuation, and the figures that name
    words say little about scripts that write no spaces; ``continued_words`` are those of two tokens or more.
    """

    lines: int
    words: int
    characters: int
    bytes: int
    tokens: int
    unknown_tokens: int
    continued_words: int

    @property
    def tokens_per_word(self) -> float:
        """Tokens for a word, the fertility of the tokenizer."""
        return self.tokens / self.words

    @property
    def characters_per_token(self) -> float:
        """Unicode code points in a token."""
        return self.characters / self.tokens

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes in a token."""
        return self.bytes / self.tokens

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are the tokenizer's unk."""
        return self.unknown_tokens / self.tokens

    @property
    def continued_word_share(self) -> float:
        """Share of the words that take two tokens or more."""
        return self.continued_words / self.words


def tokenizer_statistics(tokenizer: PreTrainedTokenizerFast, lines: Iterable[str]) -> TokenizerStatistics:
    """Return what ``tokenizer`` makes of ``lines``, encoded in batches and never held all at once.

    Special tokens around a line are left out; empty lines are skipped. Raises `VocabTransferError` when there is no
    text.
    """
    counts = np.zeros(7, dtype=np.int64)
    for batch, encoding in encode_batches(tokenizer, track(lines, "Counting tokens"), offsets=True):
        counts += _count(batch, encoding, tokenizer.unk_token_id)
    result = TokenizerStatistics(*map(int, counts))
    if not result.words:
        raise VocabTransferError("There is no text to count tokens in: every line is empty.")
    return result


def _count(batch: list[str], encoded: Any, unknown: int | None) -> NDArray[np.int64]:
    """Return the fields of `TokenizerStatistics` for a batch of lines, int64 (7,)."""
    ids = np.concatenate([np.array(line, dtype=np.int64) for line in encoded["input_ids"]])
    characters = np.array([len(line) for line in batch], dtype=np.int64)
    tokens = np.array([len(line) for line in encoded["input_ids"]], dtype=np.int64)
    offsets = [np.array(line, dtype=np.int64).reshape(-1, 2) for line in encoded["offset_mapping"]]
    # One line end between the lines: the words of the joined text are then those of all lines.
    ends = np.concatenate(offsets)[:, 1]
    begin_of_line = np.cumsum(characters + 1) - (characters + 1)
    word_of = _word_numbers("\n".join(batch))
    # The last character of a token says whose token it is.
    owner = word_of[np.maximum(ends - 1, 0) + np.repeat(begin_of_line, tokens)]
    words = int(word_of.max()) + 1
    pieces = np.bincount(owner[owner >= 0], minlength=words)
    unknown_tokens = int((ids == unknown).sum()) if unknown is not None else 0
    total_bytes = sum(len(line.encode("utf-8")) for line in batch)
    fields = [len(batch), words, characters.sum(), total_bytes, tokens.sum(), unknown_tokens, (pieces > 1).sum()]
    return np.array(fields, dtype=np.int64)


def _word_numbers(text: str) -> NDArray[np.int64]:
    """Return for every character the number of its word, -1 for white space, int64 (len(text),).

    The space right before a word belongs to the word: a lone "▁" in front of it is one of its tokens.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    inside = ~np.isin(codes, _SPACES)
    starts = inside & ~np.concatenate(([False], inside[:-1]))
    numbers = np.where(inside, np.cumsum(starts) - 1, -1)
    before = np.flatnonzero(starts[1:] & (codes[:-1] == ord(" ")))
    numbers[before] = numbers[before + 1]
    return numbers
