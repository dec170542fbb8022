"""Two directions into one set of links: what each direction believes, combined cell by cell.

``posterior`` multiplies the two probabilities of a link and keeps those above a threshold (Liang, Taskar and Klein 2006).
The classical heuristics start from each direction's best links: ``intersection``, ``union``, and
``grow-diag-final-and`` (Koehn, Och and Marcu 2003), which grows the intersection into the union along neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_model import Posteriors
from vocabtransfer.alignment.options import METHODS
from vocabtransfer.kernels import compiled

__all__ = ["METHODS", "Links", "best_links", "grow_diag_final_and", "symmetrise_block"]

Links = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


def symmetrise_block(block: Posteriors, method: str, threshold: float) -> Links:
    """Return the links of some sentence pairs: pair, source position, target position and probability of each.

    The probability is the geometric mean of what both directions say.
    """
    cells = _linked_cells(block, method, threshold)
    pair = np.searchsorted(block.base, cells, side="right") - 1
    width = block.target.words.lengths[pair]
    inside = cells - block.base[pair]
    probability = np.sqrt(block.forward[cells] * block.backward[cells])
    return block.sentences[pair], (inside // width).astype(np.int32), (inside % width).astype(np.int32), probability


def _linked_cells(block: Posteriors, method: str, threshold: float) -> NDArray[np.int64]:
    if method == "posterior":
        return np.flatnonzero(block.forward * block.backward >= threshold)
    bounds = (block.source.words.starts, block.target.words.starts, block.base)
    forward = best_links(*bounds, block.forward, block.forward_null, True)
    backward = best_links(*bounds, block.backward, block.backward_null, False)
    if method == "intersection":
        links = forward & backward
    elif method == "union":
        links = forward | backward
    else:
        links = grow_diag_final_and(*bounds, forward, backward)
    return np.flatnonzero(links)


@compiled(fastmath=True)
def best_links(source_starts, target_starts, base, posterior, null_posterior, for_targets):  # type: ignore[no-untyped-def]
    """Return (cells, bool) each word's most probable link, if it is more probable than none."""
    chosen = np.zeros(len(posterior), np.bool_)
    for k in range(len(base) - 1):
        n, m = source_starts[k + 1] - source_starts[k], target_starts[k + 1] - target_starts[k]
        words, others = (m, n) if for_targets else (n, m)
        step_word, step_other = (1, m) if for_targets else (m, 1)
        first = target_starts[k] if for_targets else source_starts[k]
        for word in range(words):
            best, where = null_posterior[first + word], np.int64(-1)
            for other in range(others):
                cell = base[k] + word * step_word + other * step_other
                if posterior[cell] > best:
                    best, where = posterior[cell], cell
            if where >= 0:
                chosen[where] = True
    return chosen


@compiled(fastmath=True)
def grow_diag_final_and(source_starts, target_starts, base, forward, backward):  # type: ignore[no-untyped-def]
    """Return (cells, bool) the links of grow-diag-final-and."""
    links = forward & backward
    for k in range(len(base) - 1):
        n, m = source_starts[k + 1] - source_starts[k], target_starts[k + 1] - target_starts[k]
        span = slice(base[k], base[k + 1])
        made = links[span].reshape(n, m)
        union = (forward[span] | backward[span]).reshape(n, m)
        source_done, target_done = np.zeros(n, np.bool_), np.zeros(m, np.bool_)
        for i in range(n):
            for j in range(m):
                if made[i, j]:
                    source_done[i] = target_done[j] = True
        grown = True
        while grown:
            grown = False
            for i in range(n):
                for j in range(m):
                    if not made[i, j]:
                        continue
                    for a in range(max(i - 1, 0), min(i + 2, n)):
                        for b in range(max(j - 1, 0), min(j + 2, m)):
                            if union[a, b] and not made[a, b] and not (source_done[a] and target_done[b]):
                                made[a, b] = source_done[a] = target_done[b] = grown = True
        for way in (forward, backward):
            for i in range(n):
                for j in range(m):
                    if way[base[k] + i * m + j] and not source_done[i] and not target_done[j]:
                        made[i, j] = source_done[i] = target_done[j] = True
    return links
