"""Merges as SentencePiece's scores: the rank of the last merge of each token.

SentencePiece joins the two neighbours whose union is the token with the best score. A tokenizer of ours has merges. In the
span of a token no merge ever crossed its edges, so a token comes about in one way only, and the rank of its last merge is a
score that gives the same ids, if merges reach every token that two others join to.
"""

from collections.abc import Collection

import numpy as np

from vocabtransfer.tokenization.merges import Derivations, MergeModel

NEVER = -1e9  # a score for tokens that no joining makes


def merge_scores(merges: MergeModel, derivations: Derivations) -> list[float]:
    """Return minus the rank of each token's last merge; `NEVER` for ids that never come about by joining."""
    last = np.stack([derivations.left, derivations.right])[:, merges.products]
    taken = (last == np.stack([merges.left, merges.right])).all(axis=0)
    scores = np.full(len(merges), NEVER)
    scores[merges.products[taken]] = -np.flatnonzero(taken).astype(np.float64)
    return [float(score) for score in scores]


def never_merged(merges: MergeModel, derivations: Derivations, apart: Collection[str]) -> list[str]:
    """Return the tokens that merges leave as two tokens, which joining would make one; ``apart`` are not joined."""
    halves = np.diff(derivations.pieces.indptr) == 2
    found = []
    for text, i in merges.ids.items():
        if halves[i] and text not in apart:
            start = derivations.pieces.indptr[i]
            parts = derivations.pieces.ids[start : start + 2]
            if not any(part < 0 or merges.strings[part] in apart for part in parts):
                found.append(text)
    return found
