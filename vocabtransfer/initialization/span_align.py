"""Align: rows from the source tokens that cover the same characters in running text."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.alignment.links import BARE_SHARE
from vocabtransfer.alignment.words import begins_word
from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.token_vectors import begins_spaced, text_blocks
from vocabtransfer.progress import track
from vocabtransfer.token_map import TokenMap
from vocabtransfer.tokenization.ragged import SpannedPieces, row_numbers

COVERED = "same characters"
#: Spans are compared in characters; parts of characters differ by a quarter at least, rounding by far less.
NEAR = 1e-3
WORDS_AT_ONCE = 1 << 16


@method("align", "copies, then the source tokens over the same characters of a text", "arXiv 2406.11477")
def align(inputs: TransferInputs) -> Initialization:
    """Tokenise text both ways and average, over a token's occurrences, the source tokens at the same characters.

    At one occurrence these are the source tokens that lie within the target token's span or around it, each with the
    same share; source tokens that cross its border are left out, and an occurrence with none at all does not count.
    Special and equal tokens are copied, tokens that do not occur get their pieces.

    Without running text the counted words are tokenised by themselves, which differs only where tokens reach across
    words and their punctuation.

    Raises:
        UsageError: there is neither text nor words.
    """
    if inputs.text is None and not inputs.words:
        raise UsageError(f"The method align needs {Need.TEXT.value}, or take `method='pieces'`.")
    counts = sparse.csr_array(inputs.shape, dtype=np.float64)
    occurrences = np.zeros(inputs.shape[0])
    for source, target, weight in track(_tokenised(inputs), "comparing tokenisations"):
        shares, seen = span_counts(source, target, weight, inputs.shape)
        counts, occurrences = counts + shares, occurrences + seen
    counts = counts @ sparse.diags_array(inputs.trained.astype(np.float64))
    total = np.asarray(counts.sum(axis=1)).ravel()
    inverse = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    covered = TokenMap.from_weights(sparse.diags_array(inverse) @ counts, COVERED, occurrences.astype(np.float32))
    return Initialization(identity(inputs).or_else(covered).or_else(fallback(inputs)))


def span_counts(
    source: SpannedPieces, target: SpannedPieces, weight: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Count which source tokens cover the same characters as each target token.

    Args:
        source: n lines as the source tokenizer cuts them.
        target: the same lines as the target tokenizer cuts them.
        weight: float64 ``(n,)``: what each line counts.
        shape: of the result.

    Returns:
        CSR float64 of ``shape``, each occurrence's weight in equal shares, and the weights of the occurrences, float64
        ``(shape[0],)``.
    """
    offsets = np.concatenate([[0.0], np.cumsum(target.lengths + 1.0)])[:-1]
    s_ids, s_starts, s_ends, _ = _places(source, offsets)
    t_ids, t_starts, t_ends, t_lines = _places(target, offsets)
    # Spans of one tokenisation do not overlap: a token lies within the last one that starts no later, or within none.
    inside, around = _containers(s_starts, s_ends, t_starts, t_ends), _containers(t_starts, t_ends, s_starts, s_ends)
    pairs = np.concatenate(
        [
            np.stack([inside, np.arange(len(inside))], axis=1)[inside >= 0],
            np.stack([np.arange(len(around)), around], axis=1)[around >= 0],
        ]
    )
    keys = np.unique(pairs[:, 0] * max(1, len(s_ids)) + pairs[:, 1])  # equal spans lie in each other
    owner, member = np.divmod(keys, max(1, len(s_ids)))
    sizes = np.bincount(owner, minlength=len(t_ids))
    weights = weight[t_lines]
    shares = (weights / np.maximum(sizes, 1))[owner]
    seen: NDArray[np.float64] = np.bincount(t_ids[sizes > 0], weights[sizes > 0], minlength=shape[0]).astype(np.float64)
    return sparse.csr_array((shares, (t_ids[owner], s_ids[member])), shape=shape), seen


def _tokenised(inputs: TransferInputs) -> Iterator[tuple[SpannedPieces, SpannedPieces, NDArray[np.float64]]]:
    """Yield blocks of lines as both tokenizers cut them, with what each line counts."""
    encoders = inputs.source, inputs.target
    if inputs.text is not None:
        for lines in text_blocks(inputs.text()):
            cut = [encoder.encode_words(lines, begins_spaced(encoder.vocabulary)) for encoder in encoders]
            yield cut[0], cut[1], np.ones(len(lines))
        return
    listed = list(inputs.words)
    for start in range(0, len(listed), WORDS_AT_ONCE):
        words = listed[start : start + WORDS_AT_ONCE]
        counts = np.array([inputs.words[word] for word in words])
        starts_word = np.array([begins_word(word) for word in words])
        for front in (" ", ""):
            lines = [front + word for word in words]
            share = np.where(starts_word == bool(front), 1 - BARE_SHARE, BARE_SHARE)
            cut = [encoder.encode_words(lines, False) for encoder in encoders]
            yield cut[0], cut[1], counts * share


def _places(
    pieces: SpannedPieces, offsets: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return ids, starts, ends and lines of the pieces that cover something, lines laid end to end."""
    lines = row_numbers(pieces)
    wide = pieces.ends - pieces.starts > NEAR
    lines = lines[wide]
    return (
        pieces.ids[wide].astype(np.int64),
        pieces.starts[wide] + offsets[lines],
        pieces.ends[wide] + offsets[lines],
        lines,
    )


def _containers(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    outer_starts: NDArray[np.float64],
    outer_ends: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return for each span the outer span it lies within, or -1."""
    found = np.searchsorted(outer_starts, starts + NEAR, side="right") - 1
    if not len(outer_starts):
        return np.full(len(starts), -1, np.int64)
    return np.where((found >= 0) & (outer_ends[found] >= ends - NEAR), found, -1)
