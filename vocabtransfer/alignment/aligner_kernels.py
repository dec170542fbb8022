"""The inner loops of the word aligner, compiled by numba: co-occurrence cells, and one sweep of collapsed inference.

A *cell* is one (source word, target word) position pair of one sentence pair; the cells of pair ``k`` start at
``base[k]`` and run source word by source word. A *slot* is one distinct pair of word types that shares a sentence
somewhere; ``slots[cell]`` points to it. Counts live in slots, so nothing of size vocabulary x vocabulary exists.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.options import DIAGONAL, FROZEN, LEXICAL
from vocabtransfer.kernels import compiled

# States less probable than this are not followed further: most words have few candidates, and time goes with their square.
NEGLIGIBLE = 1e-7


@compiled(fastmath=True)
def find_cells(source_starts, source_ids, target_starts, target_ids, source_size, target_size):  # type: ignore[no-untyped-def]
    """Return (base, slots, row, columns): cells of every sentence pair and the distinct word pairs they stand for.

    ``base`` int64 (pairs + 1), ``slots`` int32 (cells), and the word pairs as CSR without values: ``row`` int64 (source
    words + 1), ``columns`` int32, in order of first appearance.
    """
    pairs = len(source_starts) - 1
    base = cell_starts(source_starts, target_starts)
    slots = np.empty(base[pairs], np.int32)
    start, position, sentence = occurrences(source_starts, source_ids, source_size)
    row = np.zeros(source_size + 1, np.int64)
    columns = np.empty(base[pairs], np.int32)
    # Word by word: the slots of one word's row are found through a stamp on each target word, without any search.
    stamp = np.full(target_size, -1, np.int32)
    slot_of = np.empty(target_size, np.int32)
    used = 0
    for word in range(source_size):
        for at in range(start[word], start[word + 1]):
            k = sentence[at]
            first, length = target_starts[k], target_starts[k + 1] - target_starts[k]
            cell = base[k] + (position[at] - source_starts[k]) * length
            for j in range(length):
                target = target_ids[first + j]
                if stamp[target] != word:
                    stamp[target] = word
                    slot_of[target] = used
                    columns[used] = target
                    used += 1
                slots[cell + j] = slot_of[target]
        row[word + 1] = used
    return base, slots, row, columns[:used].copy()


@compiled(fastmath=True)
def match_cells(source_starts, source_ids, target_starts, target_ids, row, columns, target_size):  # type: ignore[no-untyped-def]
    """Return the slots of other sentence pairs' cells among known word pairs, -1 for a pair of words never seen."""
    pairs = len(source_starts) - 1
    base = cell_starts(source_starts, target_starts)
    slots = np.empty(base[pairs], np.int32)
    source_size = len(row) - 1
    start, position, sentence = occurrences(source_starts, source_ids, source_size)
    stamp = np.full(target_size, -1, np.int32)
    slot_of = np.empty(target_size, np.int32)
    for word in range(source_size):
        if start[word] == start[word + 1]:
            continue
        for slot in range(row[word], row[word + 1]):
            stamp[columns[slot]] = word
            slot_of[columns[slot]] = slot
        for at in range(start[word], start[word + 1]):
            k = sentence[at]
            first, length = target_starts[k], target_starts[k + 1] - target_starts[k]
            cell = base[k] + (position[at] - source_starts[k]) * length
            for j in range(length):
                target = target_ids[first + j]
                slots[cell + j] = slot_of[target] if stamp[target] == word else -1
    return slots


@compiled(fastmath=True)
def find_alike(row, columns, evidence_row, evidence_columns, target_size):  # type: ignore[no-untyped-def]
    """Return (slots, bool) which pairs of words the evidence speaks for; both are CSR without values."""
    alike = np.zeros(len(columns), np.bool_)
    stamp = np.full(target_size, -1, np.int32)
    for word in range(len(row) - 1):
        if evidence_row[word] == evidence_row[word + 1]:
            continue
        for at in range(evidence_row[word], evidence_row[word + 1]):
            stamp[evidence_columns[at]] = word
        for slot in range(row[word], row[word + 1]):
            alike[slot] = stamp[columns[slot]] == word
    return alike


@compiled(fastmath=True)
def cell_starts(source_starts, target_starts):  # type: ignore[no-untyped-def]
    """Return where the cells of each sentence pair start, int64 (pairs + 1)."""
    pairs = len(source_starts) - 1
    base = np.zeros(pairs + 1, np.int64)
    for k in range(pairs):
        base[k + 1] = base[k] + (source_starts[k + 1] - source_starts[k]) * (target_starts[k + 1] - target_starts[k])
    return base


@compiled(fastmath=True)
def occurrences(starts, ids, size):  # type: ignore[no-untyped-def]
    """Return the occurrences of every word: where its list starts, and position and sentence of each occurrence."""
    start = np.zeros(size + 1, np.int64)
    for word in ids:
        start[word + 1] += 1
    for word in range(size):
        start[word + 1] += start[word]
    fill = start[:-1].copy()
    position = np.empty(len(ids), np.int64)
    sentence = np.empty(len(ids), np.int32)
    for k in range(len(starts) - 1):
        for at in range(starts[k], starts[k + 1]):
            word = ids[at]
            position[fill[word]] = at
            sentence[fill[word]] = k
            fill[word] += 1
    return start, position, sentence


class Level(NamedTuple):
    """Counts of one direction at one level, stems or words.

    ``given`` and ``made`` (int32) are the words of both sides at this level, ``slots`` (cells, int32) their pairs;
    ``counts`` (slots) and ``totals`` (given words), float64, sum the links as they stand.
    """

    given: NDArray[np.int32]
    made: NDArray[np.int32]
    slots: NDArray[np.int32]
    counts: NDArray[np.float64]
    totals: NDArray[np.float64]


class Settings(NamedTuple):
    """Constants of the model; see `vocabtransfer.alignment.aligner_model`.

    Links less probable than ``least`` are none: they would be no evidence, but most of the work.
    """

    prior: float
    alike_prior: float
    backoff: float
    null_prior: float
    null_share: float
    least: float


@compiled(fastmath=True)
def sweep(  # type: ignore[no-untyped-def]
    stage,
    given_starts,
    made_starts,
    base,
    transposed,
    stems,
    words,
    word_share,
    alike,
    strength,
    null_counts,
    jumps,
    posterior,
    null_posterior,
    settings,
):
    """Visit every sentence pair once: take its links out of the counts, infer them from all others, put them back.

    The words of the *made* side are explained by the words of the *given* side or by nothing (null). ``posterior``
    (cells, float32) and ``null_posterior`` (made words, float32) are the links as they stand; the counts of the levels
    ``stems`` and ``words`` and ``null_counts`` (made stems, float64) are their sums. Stem pairs that are ``alike``
    (bool) have a larger prior, ``strength`` (given stems) sums the priors, ``word_share`` is the share of each made word
    in its stem. ``transposed`` says that the cells run along the made side. Returns the expected jumps, as ``jumps``.
    """
    new_jumps = np.zeros(len(jumps))
    null_total = null_counts.sum()
    for k in range(len(given_starts) - 1):
        given, made = given_starts[k], made_starts[k]
        n, m = given_starts[k + 1] - given, made_starts[k + 1] - made
        step_i, step_j = (1, n) if transposed else (m, 1)
        emit, links = np.empty((m, n)), np.zeros((m, n))
        null_emit, null_links = np.empty(m), np.zeros(m)
        if stage < FROZEN:
            null_total -= _move(
                -1.0, k, given, made, n, m, base, step_i, step_j, stems, words, null_counts, posterior, null_posterior
            )
        for i in range(n):
            stem, word = stems.given[given + i], words.given[given + i]
            stem_scale = 1.0 / (max(stems.totals[stem], 0.0) + strength[stem])
            word_scale = 1.0 / (max(words.totals[word], 0.0) + settings.backoff)
            for j in range(m):
                cell = base[k] + i * step_i + j * step_j
                # The probability of the made word, up to its share in its stem, which no link can change.
                slot = stems.slots[cell]
                seen = settings.prior
                if slot >= 0:
                    seen += max(stems.counts[slot], 0.0)
                    if alike[slot]:
                        seen += settings.alike_prior
                whole = settings.backoff * seen * stem_scale
                slot = words.slots[cell]
                if slot >= 0:
                    whole += max(words.counts[slot], 0.0) / word_share[words.made[made + j]]
                emit[j, i] = whole * word_scale
        for j in range(m):
            seen = max(null_counts[stems.made[made + j]], 0.0) + settings.null_prior
            null_emit[j] = seen / (null_total + settings.null_prior * len(null_counts))
        if stage <= LEXICAL:
            _explain_words(emit, null_emit, settings.null_share, stage == DIAGONAL, links, null_links)
        else:
            _explain_sequence(emit, null_emit, settings.null_share, jumps, links, null_links, new_jumps)
        for i in range(n):
            for j in range(m):
                value = links[j, i]
                posterior[base[k] + i * step_i + j * step_j] = value if value >= settings.least else 0.0
        for j in range(m):
            null_posterior[made + j] = null_links[j]
        if stage < FROZEN:
            null_total += _move(
                1.0, k, given, made, n, m, base, step_i, step_j, stems, words, null_counts, posterior, null_posterior
            )
    return new_jumps


@compiled(fastmath=True)
def _move(sign, k, given, made, n, m, base, step_i, step_j, stems, words, null_counts, posterior, null_posterior):  # type: ignore[no-untyped-def]
    """Put the links of one sentence pair into the counts, or take them out; returns the mass of its null links.

    What moves is the rounded float32 of the posterior, so that exactly what was put in can be taken out.
    """
    for i in range(n):
        moved = 0.0
        for j in range(m):
            cell = base[k] + i * step_i + j * step_j
            value = posterior[cell]
            if value > 0.0:
                stems.counts[stems.slots[cell]] += sign * value
                words.counts[words.slots[cell]] += sign * value
                moved += value
        stems.totals[stems.given[given + i]] += sign * moved
        words.totals[words.given[given + i]] += sign * moved
    nulls = 0.0
    for j in range(m):
        null_counts[stems.made[made + j]] += sign * null_posterior[made + j]
        nulls += null_posterior[made + j]
    return nulls


@compiled(fastmath=True)
def recount(source_starts, target_starts, base, links, forward, backward):  # type: ignore[no-untyped-def]
    """Count the links that both directions share anew, at one level."""
    forward.counts[:] = 0.0
    forward.totals[:] = 0.0
    backward.totals[:] = 0.0
    for k in range(len(base) - 1):
        m = target_starts[k + 1] - target_starts[k]
        for i in range(source_starts[k], source_starts[k + 1]):
            first = base[k] + (i - source_starts[k]) * m
            for j in range(m):
                value = links[first + j]
                if value > 0.0:
                    forward.counts[forward.slots[first + j]] += value
                    backward.totals[backward.given[target_starts[k] + j]] += value
                    forward.totals[forward.given[i]] += value
    backward.counts[:] = forward.counts


@compiled(fastmath=True)
def _explain_words(emit, null_emit, null_share, diagonal, links, null_links):  # type: ignore[no-untyped-def]
    """Posterior links where each word is explained on its own (IBM Model 1); at first, words near the diagonal."""
    m, n = emit.shape
    for j in range(m):
        null = null_share * null_emit[j]
        total = null
        for i in range(n):
            value = (1.0 - null_share) / n * emit[j, i]
            if diagonal:
                value *= np.exp(-4.0 * abs((i + 0.5) / n - (j + 0.5) / m))
            links[j, i] = value
            total += value
        for i in range(n):
            links[j, i] /= total
        null_links[j] = null / total


@compiled(fastmath=True)
def _explain_sequence(emit, null_emit, null_share, jumps, links, null_links, new_jumps):  # type: ignore[no-untyped-def]
    """Posterior links by forward-backward over a chain whose states are given words, each with a null twin.

    A null state remembers the word last linked, as Och and Ney (2003) have it; before any link there is a state of its
    own. Jump weights depend on the distance alone and are normalised over the words of the sentence.
    """
    m, n = emit.shape
    reach = len(jumps) // 2
    share = 1.0 - null_share
    enter = jumps[reach + 1 : reach + 1 + n] / jumps[reach + 1 : reach + 1 + n].sum()
    leave = np.empty(n)
    for i in range(n):
        leave[i] = 1.0 / jumps[reach - i : reach - i + n].sum()
    word = np.zeros((m, n))
    null = np.zeros((m, n))
    none = np.zeros(m)
    scales = np.empty(m)
    for j in range(m):
        before = none[j - 1] if j else 1.0
        for i in range(n):
            word[j, i] = before * enter[i]
        if j:
            for other in range(n):
                mass = word[j - 1, other] + null[j - 1, other]
                if mass > NEGLIGIBLE:
                    mass *= leave[other]
                    for i in range(n):
                        word[j, i] += mass * jumps[reach - other + i]
        total = 0.0
        for i in range(n):
            word[j, i] *= share * emit[j, i]
            if j:
                null[j, i] = null_share * null_emit[j] * (word[j - 1, i] + null[j - 1, i])
            total += word[j, i] + null[j, i]
        none[j] = null_share * null_emit[j] * before
        total += none[j]
        scales[j] = total
        for i in range(n):
            word[j, i] /= total
            null[j, i] /= total
        none[j] /= total
    after = np.ones(n)
    after_none = 1.0
    ahead = np.empty(n)
    for j in range(m - 1, -1, -1):
        null_links[j] = none[j] * after_none
        for i in range(n):
            links[j, i] = word[j, i] * after[i]
            null_links[j] += null[j, i] * after[i]
            ahead[i] = share * emit[j, i] * after[i] / scales[j]
        stay = null_share * null_emit[j] / scales[j]
        before = none[j - 1] if j else 1.0
        after_none *= stay
        for i in range(n):
            after_none += enter[i] * ahead[i]
            new_jumps[reach + i + 1] += before * enter[i] * ahead[i]
        if j:
            for other in range(n):
                mass = word[j - 1, other] + null[j - 1, other]
                if mass > NEGLIGIBLE:
                    mass *= leave[other]
                    reached = 0.0
                    for i in range(n):
                        step = jumps[reach - other + i] * ahead[i]
                        reached += step
                        new_jumps[reach - other + i] += mass * step
                    after[other] = stay * after[other] + leave[other] * reached
                else:
                    after[other] = 0.0
