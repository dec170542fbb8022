"""Means along the merges that a byte-pair tokenizer makes a token by."""

import json

import numpy as np
from scipy import sparse

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.fallback import fallback
from vocabtransfer.initialization.identity import equal_tokens, identity
from vocabtransfer.initialization.inputs import Initialization, TransferInputs
from vocabtransfer.initialization.registry import method
from vocabtransfer.token_map import TokenMap

MERGED = "merged"


@method("merge_tree", "copies, then the mean of the two tokens that were merged, and so on down", "arXiv 2406.11477")
def merge_tree(inputs: TransferInputs) -> Initialization:
    """Give a token the mean of the two it is merged from, each by the same rule, down to tokens the source has.

    A token merged from parts without a row falls back to its pieces. `UsageError` when the target has no merges.
    """
    known = equal_tokens(inputs)
    weights = known.weights[:, : inputs.shape[1]].tocsr()
    parts = _parts(inputs)
    parts[:, known.filled] = -1
    # A token's level is one more than its parts': level by level, whole blocks of rows are made at once.
    made = known.filled.copy()
    waiting = parts[0] >= 0
    while waiting.any():
        ready = waiting.copy()
        ready[waiting] = made[parts[0, waiting]] & made[parts[1, waiting]]
        rows = np.flatnonzero(ready)
        if not len(rows):
            break
        halves = np.full(len(rows), 0.5, np.float32)
        chooser = sparse.csr_array(
            (np.tile(halves, 2), (np.tile(rows, 2), parts[:, rows].ravel())), (made.size, made.size)
        )
        weights = weights + chooser @ weights
        made[rows], waiting[rows] = True, False
    return Initialization(identity(inputs).or_else(TokenMap.from_weights(weights, MERGED)).or_else(fallback(inputs)))


def _parts(inputs: TransferInputs) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return the two tokens each token is first merged from, int64 ``(2, n_target)``; -1 for those without a merge."""
    model = json.loads(inputs.target.model_json())["model"]
    merges = model.get("merges")
    if not merges:
        raise UsageError("The method merge_tree needs a target tokenizer with merges (BPE); take `method='pieces'`.")
    vocabulary = model["vocab"]
    parts = np.full((2, inputs.shape[0]), -1, np.int64)
    for merge in merges:
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        i, a, b = vocabulary.get(left + right), vocabulary.get(left), vocabulary.get(right)
        if i is not None and a is not None and b is not None and parts[0, i] < 0:
            parts[:, i] = a, b
    return parts
