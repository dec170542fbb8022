"""The rules that come before every method: special tokens by role, equal tokens by their bytes."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.token_map import TokenMap
from vocabtransfer.vocabulary import Kind

SPECIAL, COPIED = "special", "copied"


def special_tokens(inputs: TransferInputs) -> TokenMap:
    """Copy the rows of special tokens: first the source's token of the same name, then the one with the same role."""
    source, target = inputs.source_vocabulary, inputs.target_vocabulary
    by_name = {source.strings[i]: i for i in np.flatnonzero(source.kinds == Kind.SPECIAL).tolist()}
    found = {
        i: by_name[target.strings[i]]
        for i in np.flatnonzero(target.kinds == Kind.SPECIAL).tolist()
        if target.strings[i] in by_name
    }
    for role, i in target.roles.items():
        if i not in found and role in source.roles:
            found[i] = source.roles[role]
    # Chat markers of a base model were never trained, but a copy is still what the source would have done with them.
    pairs = {t: s for t, s in found.items() if s < inputs.shape[1]}
    return TokenMap.from_pairs(_ids(pairs.keys()), _ids(pairs.values()), inputs.shape, SPECIAL)


def equal_tokens(inputs: TransferInputs) -> TokenMap:
    """Copy the rows of tokens that stand for the same bytes at the same place of a word, trained rows only."""
    source, target = inputs.source_vocabulary, inputs.target_vocabulary
    index = source.index()
    pairs = [
        (i, index[key])
        for i in np.flatnonzero(target.kinds <= Kind.BYTE).tolist()
        if (key := target.key(i)) in index and inputs.trained[index[key]]
    ]
    return TokenMap.from_pairs(_ids(t for t, _ in pairs), _ids(s for _, s in pairs), inputs.shape, COPIED)


def identity(inputs: TransferInputs) -> TokenMap:
    """Apply both rules."""
    return special_tokens(inputs).or_else(equal_tokens(inputs))


def _ids(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(values), np.int64)
