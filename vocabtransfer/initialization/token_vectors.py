"""Vectors of tokens out of vectors of words: through their n-grams, or as means over the words they occur in."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.vector_files import MOST_WORDS
from vocabtransfer.initialization.word_vectors import WordVectors
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.ragged import Pieces, row_numbers
from vocabtransfer.vocabulary import Kind, Scheme, Vocabulary

WORDS_AT_ONCE = 1 << 14
CHARACTERS_AT_ONCE = 1 << 20


def encoded_text(encoder: PieceEncoder, text: Iterable[str]) -> Iterator[tuple[list[str], Pieces]]:
    """Encode running text, each line as the tokenizer begins a text; yield (lines, their pieces) in bounded blocks.

    Special tokens in the text are taken for text, and lines of white space are left out.
    """
    front = b" " if begins_spaced(encoder.vocabulary) else b""
    for lines in text_blocks(text):
        yield lines, encoder.encode_bytes([front + line.encode("utf-8", "replace") for line in lines])


def begins_spaced(vocabulary: Vocabulary) -> bool:
    """Tell whether the first word of a text is written as one after a space: not by byte-level tokenizers."""
    return vocabulary.scheme is not Scheme.BYTE_LEVEL


def text_blocks(text: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of a text that are not blank, in lists of about a million characters."""
    block: list[str] = []
    size = 0
    for line in text:
        if not line or line.isspace():
            continue
        block.append(line)
        size += len(line)
        if size >= CHARACTERS_AT_ONCE:
            yield block
            block, size = [], 0
    if block:
        yield block


def subword_vectors(encoder: PieceEncoder, vectors: WordVectors) -> NDArray[np.float32]:
    """Return a vector for each token as WECHSEL does; float32 ``(vocabulary, dim)``, zeros where there is none.

    Through n-grams where the vectors have some, else the mean over the words that hold the token, by their counts.
    """
    if vectors.ngrams is not None:
        return through_ngrams(encoder.vocabulary, vectors)
    words = vectors.words.texts(MOST_WORDS)
    return over_words(encoder, words, vectors.vectors(words), vectors.counts[: len(words)])


def through_ngrams(vocabulary: Vocabulary, vectors: WordVectors) -> NDArray[np.float32]:
    """Return the vector of each token's text, taken for a word; float32 ``(len(vocabulary), dim)``.

    Tokens without a text of their own have zeros: special tokens, parts of characters, white space.
    """
    texts = (vocabulary.text(i) if kind == Kind.TEXT else None for i, kind in enumerate(vocabulary.kinds.tolist()))
    return vectors.vectors([(text or "").strip() for text in texts])


def over_words(
    encoder: PieceEncoder, words: Sequence[str], vectors: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return for each token the weighted mean of the vectors of the words it occurs in.

    Each word is looked at twice, as it stands after a space and without one.

    Args:
        encoder: encoder of the tokenizer.
        words: n words.
        vectors: float32 ``(n, dim)``.
        weights: float64 ``(n,)``, positive: how much each word counts.

    Returns:
        float32 ``(vocabulary, dim)``; zeros for tokens that no word holds.
    """
    size = len(encoder.vocabulary)
    sums, total = np.zeros((size, vectors.shape[1])), np.zeros(size)
    for start in range(0, len(words), WORDS_AT_ONCE):
        part = slice(start, start + WORDS_AT_ONCE)
        for word_initial in (True, False):
            pieces = encoder.encode_words(words[part], word_initial)
            owners = row_numbers(pieces)
            cells = np.unique(pieces.ids.astype(np.int64) * len(pieces) + owners)
            tokens, members = np.divmod(cells, max(1, len(pieces)))
            weight = weights[part][members]
            occurs = sparse.csr_array((weight, (tokens, members)), shape=(size, len(pieces)))
            sums += occurs @ vectors[part].astype(np.float64)
            total += np.bincount(tokens, weight, minlength=size)
    means: NDArray[np.float32] = (sums / np.where(total > 0, total, 1)[:, None]).astype(np.float32)
    return means
