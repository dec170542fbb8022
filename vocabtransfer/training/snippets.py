"""Short pieces of text around new tokens, so that rare ones are met as well as frequent ones.

Token distillation (arXiv 2505.20133) learns each new token from some 25 snippets of 50 tokens that contain it. Here
documents stream by and are cut into snippets at the beginnings of words; a snippet is kept while a new token in it has
not been met often enough.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.texts import encode_batches
from vocabtransfer.vocabulary import Vocabulary

PER_TOKEN, LENGTH = 25, 50


class SnippetChooser:
    """Cuts documents into snippets and keeps those that a new token still needs."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        new_rows: NDArray[np.bool_],
        *,
        per_token: int = PER_TOKEN,
        length: int = LENGTH,
    ) -> None:
        """Take a tokenizer, which of its ids are new (bool, one an id or more), and how many snippets of what length."""
        self._tokenizer = tokenizer
        self._new = new_rows
        self._initial = Vocabulary.from_tokenizer(tokenizer).word_initial
        self._per_token = per_token
        self._length = length

    def __call__(self, documents: Iterable[str]) -> Iterator[str]:
        """Yield snippets in the order of the documents; the same documents give the same snippets.

        Raises `VocabTransferError` when no document has a new token.
        """
        met = np.zeros(len(self._new), np.int64)
        for text, ids in self.cut(documents):
            found = np.unique(ids)
            found = found[self._new[found]]
            if (met[found] < self._per_token).any():
                met[found] += 1
                yield text
        if not met.any():
            raise VocabTransferError(
                "The text has none of the new tokens, so there is nothing to distil: give text in the target language."
            )

    def cut(self, documents: Iterable[str]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield all snippets of the documents in their order, each with its tokens' ids int64."""
        for batch, encoding in encode_batches(self._tokenizer, documents, offsets=True):
            rows = zip(batch, encoding["input_ids"], encoding["offset_mapping"], strict=True)
            for text, row, spans in rows:
                ids = np.array(row, np.int64)
                for first, last in pairwise(self._edges(ids)):
                    # Some tokenizers leave the space in front of a word out of what its token covers.
                    yield text[spans[first - 1][1] if first else 0 : spans[last - 1][1]], ids[first:last]

    def _edges(self, ids: NDArray[np.int64]) -> list[int]:
        """Return where snippets of a document begin, and its end: every ``length`` tokens, but at the next word."""
        count = max(round(len(ids) / self._length), 1)
        wanted = np.linspace(0, len(ids), count + 1).astype(np.int64)
        words = np.append(np.flatnonzero(self._initial[ids]), len(ids))
        inner = words[np.searchsorted(words, wanted[1:-1])]
        return sorted({0, *inner.tolist(), len(ids)})
