"""Weighted means of a token's source pieces: uniform, by length, by position, and the pairs of weightings with a name.

A body reads a word's meaning off its last piece (causal attention has seen the others by then) and a head starts a word
with its first one, so several papers weight the pieces differently on the two sides. On a model with one table for both
sides the input's weighting is taken, and the result says so.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.initialization.fallback import PIECES, overall_mean, script_means
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.norms import wanted_norms
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.token_map import TokenMap

#: From a piece's place in its token (from 0), the token's number of pieces and the piece's characters to a weight.
Weighting = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]


def uniform(place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight all pieces alike."""
    return np.ones(len(place))


def by_characters(
    place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weight a piece by its characters; a part of a character counts as its part."""
    return characters


def only_first(
    place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take the first piece alone."""
    return np.asarray(place == 0, np.float64)


def only_last(
    place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Take the last piece alone."""
    return np.asarray(place == count - 1, np.float64)


def growing(place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight a piece exp(2) times as much as the one before it."""
    return np.asarray(np.exp(2.0 * (place - count + 1)), np.float64)


def falling(place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight a piece exp(-2) times as much as the one before it."""
    return np.asarray(np.exp(-2.0 * place), np.float64)


def halving(place: NDArray[np.int64], count: NDArray[np.int64], characters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight a piece half as much as the one before it."""
    return np.asarray(0.5**place, np.float64)


def weighted_pieces(inputs: TransferInputs, weighting: Weighting) -> TokenMap:
    """Give each token the weighted mean of the source pieces of its text; weights of a row sum to 1."""
    target = inputs.target_vocabulary
    wanted = inputs.spelled
    pieces = inputs.source.encode_bytes([target.context_bytes(i) for i in wanted.tolist()])
    counts = np.diff(pieces.indptr)
    owner = np.repeat(wanted, counts)
    place = np.arange(len(pieces.ids)) - np.repeat(pieces.indptr[:-1], counts)
    weight = weighting(place, np.repeat(counts, counts), _characters(inputs)[pieces.ids])
    weight = np.where(inputs.trained[pieces.ids], weight, 0)
    total = np.bincount(owner, weight, minlength=inputs.shape[0])[owner]
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    matrix = sparse.csr_array((share.astype(np.float32), (owner, pieces.ids)), shape=inputs.shape)
    return TokenMap.from_weights(matrix, PIECES)


def _characters(inputs: TransferInputs) -> NDArray[np.float64]:
    """Return how many characters each source token stands for; bytes that continue one count a quarter."""
    texts = inputs.source_vocabulary.token_bytes
    found = np.fromiter((sum((byte & 0xC0) != 0x80 for byte in text) for text in texts), np.float64, len(texts))
    lengths = np.fromiter(map(len, texts), np.float64, len(texts))
    return np.asarray(np.maximum(found, np.minimum(lengths, 4) / 4), np.float64)


def covering_pieces(inputs: TransferInputs, weighting: Weighting) -> TokenMap:
    """Give every token a row: its weighted pieces, else its script's mean, else the mean of all."""
    return weighted_pieces(inputs, weighting).or_else(script_means(inputs)).or_else(overall_mean(inputs))


def _complete(inputs: TransferInputs, weighting: Weighting) -> TokenMap:
    return identity(inputs).or_else(covering_pieces(inputs, weighting))


def _preset(inputs: TransferInputs, entering: Weighting, leaving: Weighting) -> Initialization:
    return Initialization(_complete(inputs, entering), output_map=_complete(inputs, leaving))


@method("pieces", "copies, then the mean of the source pieces of the token's text", "Fast Vocabulary Transfer, 2022")
def pieces(inputs: TransferInputs) -> Initialization:
    """Copy special and equal tokens; give every other the uniform mean of its pieces."""
    return Initialization(_complete(inputs, uniform))


@method("pieces_characters", "copies, then pieces weighted by their characters", "BIL, arXiv 2608.03494")
def pieces_characters(inputs: TransferInputs) -> Initialization:
    """Weight pieces by the characters they stand for, on both sides."""
    return Initialization(_complete(inputs, by_characters))


@method("pieces_first", "copies, then the first piece", "arXiv 2406.11477")
def pieces_first(inputs: TransferInputs) -> Initialization:
    """Take the first piece's row, on both sides."""
    return Initialization(_complete(inputs, only_first))


@method("pieces_last", "copies, then the last piece", "arXiv 2406.11477")
def pieces_last(inputs: TransferInputs) -> Initialization:
    """Take the last piece's row, on both sides."""
    return Initialization(_complete(inputs, only_last))


@method("eeve", "input: mean of the pieces; output: the first piece", "EEVE, arXiv 2402.14714", separate_output=True)
def eeve(inputs: TransferInputs) -> Initialization:
    """Give the input the uniform mean and the head the first piece."""
    return _preset(inputs, uniform, only_first)


@method(
    "adaptivocab",
    "input: pieces growing by exp(2); output: falling by exp(-2)",
    "AdaptiVocab, arXiv 2503.19693",
    separate_output=True,
)
def adaptivocab(inputs: TransferInputs) -> Initialization:
    """Weight the last pieces most on the input and the first ones most on the head."""
    return _preset(inputs, growing, falling)


@method(
    "transplant",
    "input: the last piece; output: pieces halving from the first",
    "transplant-vocab",
    separate_output=True,
)
def transplant(inputs: TransferInputs) -> Initialization:
    """Give the input the last piece and the head the pieces at weights 1, 1/2, 1/4 ..."""
    return _preset(inputs, only_last, halving)


@method(
    "bil",
    "input: mean of the pieces at the script's median length; output: pieces by characters",
    "BIL, arXiv 2608.03494",
    Need.TABLES,
    separate_output=True,
)
def bil(inputs: TransferInputs) -> Initialization:
    """Rescale the input's uniform means to the median length of the source's rows in the token's script.

    The head gets pieces weighted by characters, not rescaled. Where one table serves both sides it is the head's:
    long rows of rare tokens would be taken for likely ones.
    """
    leaving = _complete(inputs, by_characters)
    tables = inputs.tables
    assert tables is not None, "the registry checks that methods get the tables they need"
    if tables.output is None:
        return Initialization(leaving)
    entering = _complete(inputs, uniform)
    wanted = wanted_norms(inputs, entering, tables.input, "script")
    factor = np.ones(inputs.shape[0], np.float32)
    for start, rows in entering.blocks(tables.input):
        lengths = np.linalg.norm(rows, axis=1)
        here = wanted[start : start + len(rows)]
        np.divide(here, lengths, out=factor[start : start + len(rows)], where=(here > 0) & (lengths > 0))
    return Initialization(entering.scaled(factor), output_map=leaving)
