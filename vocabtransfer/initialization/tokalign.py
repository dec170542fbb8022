"""TokAlign: each new token gets the row of the one source token that is used most alike in one corpus."""

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.cooccurrence import cooccurrence_vectors
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import equal_tokens, identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.neighbours import nearest, unit_rows
from vocabtransfer.initialization.registry import Need, method
from vocabtransfer.token_map import TokenMap

MATCHED = "used most alike"
PIVOTS = 300
#: Tokens seen less often are used like nothing in particular.
FEWEST_SEEN = 5


@method("tokalign", "copies, then one source token each: the one used most alike", "arXiv 2506.03523", Need.TEXT)
def tokalign(inputs: TransferInputs) -> Initialization:
    """Copy to each token the row of the source token with the most similar co-occurrence vector.

    The target text is written in the tokens of both tokenizers, and each gets vectors from its co-occurrence counts. The
    two spaces are compared through the cosines to 300 pivots, tokens that both vocabularies have (relative
    representations). Special and equal tokens are copied; tokens seen less than 5 times get their pieces. Running text
    is needed: counts of words do not say what stands beside what.

    Unlike the paper, vectors are factorised positive pointwise mutual information instead of GloVe: they factorise much
    the same matrix and are as good (Levy, Goldberg & Dagan, 2015), without a random order of updates. Pivots are the most
    frequent shared tokens instead of random ones. The corpus is the target language's alone: with English beside it,
    fewer shared tokens found themselves again.
    """
    assert inputs.text is not None, "the registry checks that methods get the text they need"
    (source, source_counts), (target, target_counts) = (
        cooccurrence_vectors(encoder, inputs.text()) for encoder in (inputs.source, inputs.target)
    )
    usable = np.zeros(len(source), np.bool_)
    usable[: inputs.shape[1]] = inputs.trained[: len(source)]
    keys = np.flatnonzero(usable & (source_counts >= FEWEST_SEEN) & source.any(axis=1))
    copied = identity(inputs)
    queries = np.flatnonzero(~copied.filled & (target_counts >= FEWEST_SEEN) & target.any(axis=1))
    pivots = shared_pivots(equal_tokens(inputs), source_counts, target_counts)
    if not len(pivots[0]) or not len(keys):
        return Initialization(copied.or_else(fallback(inputs)))
    found, _ = nearest(relative(target, pivots[0])[queries], relative(source, pivots[1])[keys], 1)
    matched = TokenMap.from_pairs(queries, keys[found[:, 0]], inputs.shape, MATCHED)
    return Initialization(copied.or_else(matched).or_else(fallback(inputs)))


def shared_pivots(
    copies: TokenMap, source_counts: NDArray[np.int64], target_counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the 300 equal tokens that are most frequent in both tokenisations: target ids, and source ids."""
    target = np.flatnonzero(copies.filled)
    source = copies.weights[target].indices.astype(np.int64)
    seen = np.minimum(source_counts[source], target_counts[target])
    order = np.argsort(-seen, kind="stable")[:PIVOTS]
    order = order[seen[order] >= FEWEST_SEEN]
    return target[order], source[order]


def relative(vectors: NDArray[np.float32], pivots: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return unit rows of the cosines of all vectors with the pivots' ones; float32 ``(n, pivots)``."""
    units = unit_rows(vectors)
    return unit_rows(units @ units[pivots].T)
