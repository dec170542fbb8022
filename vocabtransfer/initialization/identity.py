"""The rules that come before every method: special tokens by role, byte tokens, equal tokens by their bytes."""

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


def byte_tokens(inputs: TransferInputs) -> TokenMap:
    """Copy the rows of fallback tokens (``<0x41>``) from the source's, trained or not.

    A model hardly ever predicts them, and its rows say so: any other row, a letter's above all, takes probability from
    the tokens that text is really made of.
    """
    source, target = inputs.source_vocabulary, inputs.target_vocabulary
    other = inputs.counterparts
    here = np.flatnonzero((target.kinds == Kind.BYTE) & (other >= 0))
    here = here[source.kinds[other[here]] == Kind.BYTE]
    return TokenMap.from_pairs(here, other[here], inputs.shape, COPIED)


def fixed_tokens(inputs: TransferInputs) -> TokenMap:
    """Copy special tokens and byte tokens: what no evidence of the language says anything about."""
    return special_tokens(inputs).or_else(byte_tokens(inputs))


def equal_tokens(inputs: TransferInputs) -> TokenMap:
    """Copy the rows of tokens that stand for the same bytes at the same place of a word, trained rows only."""
    other = inputs.counterparts
    here = np.flatnonzero(other >= 0)
    here = here[inputs.trained[other[here]]]
    return TokenMap.from_pairs(here, other[here], inputs.shape, COPIED)


def identity(inputs: TransferInputs) -> TokenMap:
    """Apply all rules."""
    return fixed_tokens(inputs).or_else(equal_tokens(inputs))


def _ids(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(values), np.int64)
