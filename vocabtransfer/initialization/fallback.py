"""Averages that stand in where there is no evidence: pieces of the token's text, its script's mean, the mean of all."""

import numpy as np
from scipy import sparse

from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.token_map import TokenMap
from vocabtransfer.vocabulary import SCRIPTS, Kind

PIECES, SCRIPT_MEAN, MEAN = "pieces", "script mean", "mean"
#: A script's mean over fewer tokens than this says more about the tokens than about the script.
FEWEST_TOKENS = 20


def pieces_map(inputs: TransferInputs) -> TokenMap:
    """Give each token the uniform mean of the source pieces of its text, as in Fast Vocabulary Transfer (2022)."""
    target = inputs.target_vocabulary
    wanted = inputs.spelled
    pieces = inputs.source.encode_bytes([target.context_bytes(i) for i in wanted.tolist()])
    owner = np.repeat(wanted, np.diff(pieces.indptr))
    keep = inputs.trained[pieces.ids]
    owner, ids = owner[keep], pieces.ids[keep]
    share = 1 / np.bincount(owner, minlength=inputs.shape[0])[owner]
    weights = sparse.csr_array((share.astype(np.float32), (owner, ids)), shape=inputs.shape)
    return TokenMap.from_weights(weights, PIECES)


def script_means(inputs: TransferInputs) -> TokenMap:
    """Give each token the mean of the source's trained tokens in its script, where the source has enough of them."""
    source = inputs.source_vocabulary
    scripts = np.zeros(inputs.shape[1], np.int64)
    scripts[: len(source)] = source.scripts()
    usable = inputs.trained & (scripts > 0)
    sizes = np.bincount(scripts[usable], minlength=len(SCRIPTS))
    kept = np.flatnonzero(sizes >= FEWEST_TOKENS)
    group_of = np.full(len(SCRIPTS), -1, np.int64)
    group_of[kept] = np.arange(len(kept))
    members = np.flatnonzero(usable & (group_of[scripts] >= 0))
    groups = group_of[scripts[members]]
    share = (1 / sizes[kept])[groups].astype(np.float32)
    averages = sparse.csr_array((share, (groups, members)), shape=(len(kept), inputs.shape[1]))
    choice = group_of[inputs.target_vocabulary.scripts()]
    return TokenMap.from_groups(choice, averages, [f"mean of {SCRIPTS[i]}" for i in kept.tolist()], SCRIPT_MEAN)


def overall_mean(inputs: TransferInputs) -> TokenMap:
    """Give every token the mean of all trained ordinary tokens of the source."""
    source = inputs.source_vocabulary
    ordinary = inputs.trained.copy()
    ordinary[: len(source)] &= source.kinds <= Kind.BYTE
    ordinary[len(source) :] = False
    members = np.flatnonzero(ordinary if ordinary.any() else np.ones_like(ordinary))
    share = np.full(len(members), 1 / len(members), np.float32)
    average = sparse.csr_array((share, (np.zeros_like(members), members)), shape=(1, inputs.shape[1]))
    return TokenMap.from_groups(np.zeros(inputs.shape[0], np.int64), average, ["mean of all"], MEAN)


def fallback(inputs: TransferInputs) -> TokenMap:
    """Give every token a row: its pieces, else its script's mean, else the mean of all."""
    return pieces_map(inputs).or_else(script_means(inputs)).or_else(overall_mean(inputs))
