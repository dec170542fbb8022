"""WECHSEL: rows from the source tokens whose vectors are nearest in a bilingual word space."""

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.bilingual_vectors import bilingual_vectors
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.neighbours import nearest, softmax_weights, spread, unit_rows
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.initialization.token_vectors import subword_vectors
from vocabtransfer.token_map import TokenMap

SIMILAR = "similar in word vectors"
NEIGHBOURS, TEMPERATURE = 10, 0.1


@method(
    "wechsel",
    "copies, then the nearest source tokens in bilingual word vectors",
    "arXiv 2112.06598",
    Need.ALIGNMENT,
)
def wechsel(inputs: TransferInputs) -> Initialization:
    """Average the 10 source tokens nearest in bilingual word vectors, by softmax(cosine / 0.1).

    Word vectors are loaded or trained on the texts, the source's are rotated onto the target's by orthogonal Procrustes
    over the word pairs of the alignment that are each other's best, and a token has the vector that fastText gives its
    text: the mean of its n-grams' vectors, and of the word's own if it is one. Vectors without n-grams (``.vec``) give a
    token the mean of the words that hold it, weighted by their frequency.

    Unlike the paper, equal tokens are copied (WECHSEL copies special tokens alone), pairs are scaled to length 1 before
    the rotation, and tokens without a vector get their pieces rather than noise. Running text is needed to train
    vectors; counts of words do not suffice.
    """
    space = bilingual_vectors(inputs, "wechsel")
    source = subword_vectors(inputs.source, space.source) @ space.rotation
    target = subword_vectors(inputs.target, space.target)
    copied = identity(inputs)
    similar = nearest_map(inputs, source, target, ~copied.filled)
    return Initialization(copied.or_else(similar).or_else(fallback(inputs)))


def nearest_map(
    inputs: TransferInputs, source: NDArray[np.float32], target: NDArray[np.float32], wanted: NDArray[np.bool_]
) -> TokenMap:
    """Map each wanted target token to its nearest trained source tokens, weighted by the softmax of their cosines.

    Args:
        inputs: for the vocabularies and the trained rows.
        source: float32 ``(source vocabulary, dim)``; tokens with zeros take no part.
        target: float32 ``(target vocabulary, dim)``; tokens with zeros get no row.
        wanted: boolean ``(target vocabulary,)``.
    """
    queries = np.flatnonzero(wanted & target.any(axis=1))
    usable = inputs.trained[: len(source)]
    keys = np.flatnonzero(usable & source[: len(usable)].any(axis=1))
    places, similarities = nearest(unit_rows(target[queries]), unit_rows(source[keys]), NEIGHBOURS)
    weights = softmax_weights(places, similarities, TEMPERATURE, len(keys))
    return TokenMap.from_weights(spread(weights, queries, keys, inputs.shape), SIMILAR)
