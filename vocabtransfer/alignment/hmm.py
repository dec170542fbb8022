"""The kernels of the word aligner: IBM Model 1 and a hidden Markov model, both directions in one pass, in numba.

Each word pair that ever meets in a sentence pair has one slot; the two translation tables are arrays over the slots. The
HMM is the one of Vogel, Ney and Tillmann (1996): the position of a word's partner depends on the distance from the
last one's, with null states that remember it (Och and Ney, 2003). The directions are trained together: a link counts as much
as both believe in it (Liang, Taskar and Klein, 2006).
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

#: Jumps longer than this share one probability.
LONGEST_JUMP = 64
PARAMETERS = 2 * LONGEST_JUMP + 1

Ints = NDArray[np.int64]
Ids = NDArray[np.int32]
Floats = NDArray[np.float64]


@nb.njit(cache=True, nogil=True)
def number_slots(
    source_ptr: Ints, source: Ids, target_ptr: Ints, target: Ids, n_source: int, n_target: int
) -> tuple[Ints, Ids, Ints, Ids]:
    """Give every pair of words that meet a slot.

    Returns (first cell of each sentence pair, slot of each cell, first slot of each source word, target word of each
    slot). Cells of a sentence pair with I source and J target words lie in order ``i * J + j``.
    """
    pairs = len(source_ptr) - 1
    base = np.zeros(pairs + 1, np.int64)
    for k in range(pairs):
        base[k + 1] = base[k] + (source_ptr[k + 1] - source_ptr[k]) * (target_ptr[k + 1] - target_ptr[k])
    slots = np.empty(base[pairs], np.int32)
    start = np.zeros(n_source + 1, np.int64)
    for word in source:
        start[word + 1] += 1
    for word in range(n_source):
        start[word + 1] += start[word]
    fill = start[:-1].copy()
    occurrence, sentence = np.empty(len(source), np.int64), np.empty(len(source), np.int64)
    for k in range(pairs):
        for p in range(source_ptr[k], source_ptr[k + 1]):
            occurrence[fill[source[p]]] = p
            sentence[fill[source[p]]] = k
            fill[source[p]] += 1
    seen_with, where = np.full(n_target, -1, np.int64), np.empty(n_target, np.int32)
    rows = np.zeros(n_source + 1, np.int64)
    count = 0
    for word in range(n_source):
        for q in range(start[word], start[word + 1]):
            k = sentence[q]
            width = target_ptr[k + 1] - target_ptr[k]
            for j in range(width):
                partner = target[target_ptr[k] + j]
                if seen_with[partner] != word:
                    seen_with[partner] = word
                    where[partner] = count
                    count += 1
                slots[base[k] + (occurrence[q] - source_ptr[k]) * width + j] = where[partner]
        rows[word + 1] = count
    partners = np.empty(count, np.int32)
    for k in range(pairs):
        width = target_ptr[k + 1] - target_ptr[k]
        for cell in range(base[k], base[k + 1]):
            partners[slots[cell]] = target[target_ptr[k] + (cell - base[k]) % width]
    return base, slots, rows, partners


@nb.njit(cache=True, nogil=True)
def model_one(
    ptrs: tuple[Ints, Ints],
    words: tuple[Ids, Ids],
    base: Ints,
    slots: Ids,
    tables: tuple[Floats, Floats],
    nulls: tuple[Floats, Floats],
    counts: tuple[Floats, Floats],
    null_counts: tuple[Floats, Floats],
) -> None:
    """Do one pass of IBM Model 1 in both directions and add the expected links to ``counts`` and ``null_counts``."""
    for k in range(len(base) - 1):
        s0, t0, b0 = ptrs[0][k], ptrs[1][k], base[k]
        height, width = ptrs[0][k + 1] - s0, ptrs[1][k + 1] - t0
        forward, backward = np.empty((height, width)), np.empty((height, width))
        for j in range(width):
            word = words[1][t0 + j]
            total = nulls[0][word]
            for i in range(height):
                forward[i, j] = tables[0][slots[b0 + i * width + j]]
                total += forward[i, j]
            null_counts[0][word] += nulls[0][word] / total
            for i in range(height):
                forward[i, j] /= total
        for i in range(height):
            word = words[0][s0 + i]
            total = nulls[1][word]
            for j in range(width):
                backward[i, j] = tables[1][slots[b0 + i * width + j]]
                total += backward[i, j]
            null_counts[1][word] += nulls[1][word] / total
            for j in range(width):
                backward[i, j] /= total
        for i in range(height):
            for j in range(width):
                counts[0][slots[b0 + i * width + j]] += forward[i, j]
                counts[1][slots[b0 + i * width + j]] += backward[i, j]


@nb.njit(cache=True, nogil=True)
def forward_backward(
    emission: Floats,
    null_emission: Floats,
    jumps: Floats,
    null_share: float,
    posterior: Floats,
    null_posterior: Floats,
    jump_counts: Floats,
) -> None:
    """Fill in the link posteriors of one sentence and direction, and add the expected jumps to ``jump_counts``.

    ``emission`` is (generated words, generating words). A null state stands beside every generating word, and one more
    before the first link.
    """
    length, states = emission.shape
    first, transition = np.empty(states), np.empty((states, states))
    for i in range(states):
        first[i] = jumps[min(i + 1, LONGEST_JUMP) + LONGEST_JUMP]
    first /= first.sum()
    for a in range(states):
        total = 0.0
        for i in range(states):
            transition[a, i] = jumps[min(max(i - a, -LONGEST_JUMP), LONGEST_JUMP) + LONGEST_JUMP]
            total += transition[a, i]
        for i in range(states):
            transition[a, i] /= total
    linked, null, start, scale = (
        np.zeros((length, states)),
        np.zeros((length, states)),
        np.zeros(length),
        np.empty(length),
    )
    for j in range(length):
        before = 1.0 if j == 0 else start[j - 1]
        for i in range(states):
            linked[j, i] = before * first[i]
        if j > 0:
            for a in range(states):
                mass = linked[j - 1, a] + null[j - 1, a]
                null[j, a] = null_share * null_emission[j] * mass
                for i in range(states):
                    linked[j, i] += mass * transition[a, i]
        total = 0.0
        for i in range(states):
            linked[j, i] *= (1 - null_share) * emission[j, i]
            total += linked[j, i] + null[j, i]
        start[j] = null_share * null_emission[j] * before
        total += start[j]
        scale[j] = total
        for i in range(states):
            linked[j, i] /= total
            null[j, i] /= total
        start[j] /= total
    beta, beta_start, ahead, earlier = np.ones(states), 1.0, np.empty(states), np.empty(states)
    for j in range(length - 1, -1, -1):
        null_posterior[j] = start[j] * beta_start
        for i in range(states):
            posterior[j, i] = linked[j, i] * beta[i]
            null_posterior[j] += null[j, i] * beta[i]
        if j == 0:
            for i in range(states):
                jump_counts[min(i + 1, LONGEST_JUMP) + LONGEST_JUMP] += posterior[0, i]
            break
        empty = null_share * null_emission[j] / scale[j]
        new_start = empty * beta_start
        for i in range(states):
            ahead[i] = (1 - null_share) * emission[j, i] * beta[i] / scale[j]
            new_start += first[i] * ahead[i]
            jump_counts[min(i + 1, LONGEST_JUMP) + LONGEST_JUMP] += start[j - 1] * first[i] * ahead[i]
        for a in range(states):
            mass = linked[j - 1, a] + null[j - 1, a]
            total = empty * beta[a]
            for i in range(states):
                step = transition[a, i] * ahead[i]
                total += step
                jump_counts[min(max(i - a, -LONGEST_JUMP), LONGEST_JUMP) + LONGEST_JUMP] += mass * step
            earlier[a] = total
        beta[:] = earlier
        beta_start = new_start


@nb.njit(cache=True, nogil=True)
def hmm_pass(
    ptrs: tuple[Ints, Ints],
    words: tuple[Ids, Ids],
    base: Ints,
    slots: Ids,
    tables: tuple[Floats, Floats],
    nulls: tuple[Floats, Floats],
    jumps: tuple[Floats, Floats],
    null_share: float,
    counts: tuple[Floats, Floats],
    null_counts: tuple[Floats, Floats],
    jump_counts: tuple[Floats, Floats],
    links: tuple[Ints, Ints, NDArray[np.float32]],
    threshold: float,
) -> int:
    """Do one pass of the HMM in both directions.

    Expected links go to the counts; links whose posteriors multiply to more than ``threshold`` are written into
    ``links`` as (position in the source words, position in the target words, product), as far as there is room.

    Returns:
        The number of links written.
    """
    found, room = 0, len(links[0])
    for k in range(len(base) - 1):
        s0, t0, b0 = ptrs[0][k], ptrs[1][k], base[k]
        height, width = ptrs[0][k + 1] - s0, ptrs[1][k + 1] - t0
        emit_forward, emit_backward = np.empty((width, height)), np.empty((height, width))
        null_forward, null_backward = np.empty(width), np.empty(height)
        for i in range(height):
            null_backward[i] = nulls[1][words[0][s0 + i]]
            for j in range(width):
                slot = slots[b0 + i * width + j]
                emit_forward[j, i] = tables[0][slot]
                emit_backward[i, j] = tables[1][slot]
        for j in range(width):
            null_forward[j] = nulls[0][words[1][t0 + j]]
        forward, backward = np.empty((width, height)), np.empty((height, width))
        none_forward, none_backward = np.zeros(width), np.zeros(height)
        forward_backward(emit_forward, null_forward, jumps[0], null_share, forward, none_forward, jump_counts[0])
        forward_backward(emit_backward, null_backward, jumps[1], null_share, backward, none_backward, jump_counts[1])
        for j in range(width):
            null_counts[0][words[1][t0 + j]] += none_forward[j]
        for i in range(height):
            null_counts[1][words[0][s0 + i]] += none_backward[i]
            for j in range(width):
                slot = slots[b0 + i * width + j]
                both = forward[j, i] * backward[i, j]
                counts[0][slot] += both
                counts[1][slot] += both
                if both > threshold and found < room:
                    links[0][found] = s0 + i
                    links[1][found] = t0 + j
                    links[2][found] = both
                    found += 1
    return found
