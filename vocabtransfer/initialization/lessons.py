"""What the source's own tokens teach about pieces: tokens it has, cut into the parts they were merged from."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.inputs import TransferInputs

#: Tokens that are learnt from at most. Those of the target language come first; a map on a few thousand is as good.
LESSONS = 6000
#: Share of the lessons whose one part is cut once more: new tokens have three pieces or more as often.
DEEPER = 0.35


def lessons(inputs: TransferInputs, counts: NDArray[np.float64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return tokens of the source with the parts they were merged from: the most frequent first, then others at random.

    ``counts`` is how often each source token is used in the target language, float64, one a source token. Empty when
    the source tokenizer has no merges.
    """
    parts = merged_from(json.loads(inputs.source.model_json())["model"])
    usable = np.array(sorted(i for i in parts if i < len(inputs.trained) and inputs.trained[i]), np.int64)
    if not len(usable):
        return []
    random = np.random.default_rng(inputs.seed)
    shuffled = random.permutation(usable)
    chosen = shuffled[np.argsort(-counts[shuffled], kind="stable")][:LESSONS]
    found = []
    for token in chosen.tolist():
        pieces = list(parts[token])
        if random.random() < DEEPER:
            place = int(random.integers(2))
            pieces[place : place + 1] = parts.get(pieces[place], (pieces[place],))
        if inputs.trained[pieces].all():
            found.append((token, np.array(pieces, np.int64)))
    return found


def merged_from(model: Mapping[str, object]) -> dict[int, tuple[int, int]]:
    """Return the two tokens that each token of a byte-pair model is first merged from; empty for other models."""
    merges, vocabulary = model.get("merges"), model.get("vocab")
    if not isinstance(merges, list) or not isinstance(vocabulary, dict):
        return {}
    found: dict[int, tuple[int, int]] = {}
    for merge in merges:
        left, right = merge if isinstance(merge, list) else merge.split(" ", 1)
        made = vocabulary.get(left + right)
        if made is not None and left in vocabulary and right in vocabulary:
            found.setdefault(made, (vocabulary[left], vocabulary[right]))
    return found
