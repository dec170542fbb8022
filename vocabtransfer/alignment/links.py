"""From word links to token links: which source tokens stand behind each target token, and how often.

Word pairs are encoded as they stand in running text, and inside a pair the tokens share the pair's count by the part of
the word they cover. Nothing here looks at the strings of a vocabulary, so every tokenizer kind and script works alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.words import begins_word
from vocabtransfer.progress import track
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.ragged import SpannedPieces

#: Share of a word's occurrences that follow no space: after brackets and quotes, at the start of a line.
BARE_SHARE = 0.1
#: Share of a pair's count that goes to tokens covering the same part of their words; the rest goes to all alike.
MONOTONE_SHARE = 0.5
PAIRS_AT_ONCE = 1 << 16


def token_counts(
    table: WordTable,
    source: PieceEncoder,
    target: PieceEncoder,
    *,
    bare_share: float = BARE_SHARE,
    monotone_share: float = MONOTONE_SHARE,
) -> sparse.csr_array:
    """Turn the word-pair counts of a table into token-pair counts for two tokenizers.

    Each pair is counted once as it stands after a space and, with weight ``bare_share``, as it stands without one;
    words that do not start with a letter or digit (punctuation) count fully without the space. The tokens of a pair
    share its count: with equally many tokens on both sides the monotone share is one-to-one, else it goes by overlap
    of the covered parts.

    Returns:
        CSR float32, shape ``(len(target vocabulary), len(source vocabulary))``.
    """
    shape = (len(target.vocabulary), len(source.vocabulary))
    counts = sparse.csr_array(shape, dtype=np.float64)
    pairs = sparse.coo_array(table.counts)
    starts_word = np.fromiter((begins_word(word) for word in table.target_words), np.bool_, len(table.target_words))
    for word_initial in (True, False):
        factor = np.where(starts_word, 1.0, bare_share) if word_initial else np.where(starts_word, bare_share, 1.0)
        source_pieces = source.encode_words(table.source_words, word_initial)
        target_pieces = target.encode_words(table.target_words, word_initial)
        weights = pairs.data * factor[pairs.row]
        blocks = range(0, len(weights), PAIRS_AT_ONCE)
        for start in track(blocks, "counting token links"):
            part = slice(start, start + PAIRS_AT_ONCE)
            counts = counts + _spread(
                source_pieces, target_pieces, pairs.col[part], pairs.row[part], weights[part], shape, monotone_share
            )
    return sparse.csr_array(counts, dtype=np.float32)


def token_frequencies(
    words: Mapping[str, float], encoder: PieceEncoder, *, bare_share: float = BARE_SHARE
) -> NDArray[np.float64]:
    """Return how often each token occurs in a bag of words, float64 of the vocabulary's length."""
    texts = list(words)
    counts = np.fromiter(words.values(), np.float64, len(texts))
    starts_word = np.fromiter((begins_word(word) for word in texts), np.bool_, len(texts))
    total = np.zeros(len(encoder.vocabulary))
    for word_initial, share in ((True, 1 - bare_share), (False, bare_share)):
        pieces = encoder.encode_words(texts, word_initial)
        weight = counts * np.where(starts_word, share, 1 - share)
        repeated = np.repeat(weight, np.diff(pieces.indptr))
        total += np.bincount(pieces.ids, repeated, minlength=len(total))
    return total


def _spread(
    source: SpannedPieces,
    target: SpannedPieces,
    source_word: NDArray[Any],
    target_word: NDArray[Any],
    weight: NDArray[np.float64],
    shape: tuple[int, int],
    monotone_share: float,
) -> sparse.csr_array:
    """Spread the weight of each word pair over the pairs of its tokens."""
    n_source = np.diff(source.indptr)[source_word]
    n_target = np.diff(target.indptr)[target_word]
    cells = n_source * n_target
    owner = np.repeat(np.arange(len(cells)), cells)
    within = np.arange(cells.sum()) - np.repeat(np.cumsum(cells) - cells, cells)
    i, j = within // n_target[owner], within % n_target[owner]
    at_source = source.indptr[source_word][owner] + i
    at_target = target.indptr[target_word][owner] + j
    source_length = np.maximum(source.lengths[source_word][owner], 1)
    target_length = np.maximum(target.lengths[target_word][owner], 1)
    overlap = np.minimum(source.ends[at_source] / source_length, target.ends[at_target] / target_length)
    overlap = overlap - np.maximum(source.starts[at_source] / source_length, target.starts[at_target] / target_length)
    same_count = n_source[owner] == n_target[owner]
    monotone = np.where(same_count, (i == j) / n_source[owner], np.maximum(overlap, 0))
    value = weight[owner] * (monotone_share * monotone + (1 - monotone_share) / cells[owner])
    entries = (value, (target.ids[at_target], source.ids[at_source]))
    return sparse.csr_array(entries, shape=shape)
