"""The inner loops that carry counts between shards, compiled by numba.

Shards exchange counts of word pairs as sparse rows: for each source word the target words it was linked with, and two
numbers, the links of both directions.
"""

import numpy as np

from vocabtransfer.kernels import compiled

# Below this share of a row, its pairs are looked up one by one.
SCATTERED = 1 / 16


@compiled(fastmath=True)
def add_up_cells(slots, forward, backward, size):  # type: ignore[no-untyped-def]
    """Return the links of both directions by slot, (``size``, 2) float64; most cells have none."""
    counts = np.zeros((size, 2))
    for cell in range(len(slots)):
        if forward[cell] > 0.0 or backward[cell] > 0.0:
            counts[slots[cell], 0] += forward[cell]
            counts[slots[cell], 1] += backward[cell]
    return counts


@compiled(fastmath=True)
def look_up(row, columns, first, known_row, known_columns, known_counts, target_size, counts):  # type: ignore[no-untyped-def]
    """Fill in what is known of a shard's word pairs (``row``, ``columns``: CSR over all source words).

    Known are the rows of the source words from ``first`` on, their columns sorted; ``counts`` (pairs, 2) gets theirs.
    """
    stamp = np.full(target_size, -1, np.int32)
    slot_of = np.empty(target_size, np.int32)
    for offset in range(len(known_row) - 1):
        word = first + offset
        start, stop = known_row[offset], known_row[offset + 1]
        wanted = row[word + 1] - row[word]
        if wanted == 0 or start == stop:
            continue
        if wanted < SCATTERED * (stop - start):
            known = known_columns[start:stop]
            for slot in range(row[word], row[word + 1]):
                at = np.searchsorted(known, columns[slot])
                if at < stop - start and known[at] == columns[slot]:
                    counts[slot, 0] = known_counts[start + at, 0]
                    counts[slot, 1] = known_counts[start + at, 1]
            continue
        for slot in range(row[word], row[word + 1]):
            stamp[columns[slot]] = word
            slot_of[columns[slot]] = slot
        for at in range(start, stop):
            target = known_columns[at]
            if stamp[target] == word:
                counts[slot_of[target], 0] = known_counts[at, 0]
                counts[slot_of[target], 1] = known_counts[at, 1]


@compiled(fastmath=True)
def merge_rows(bounds, sources, columns, counts, first, last, target_size):  # type: ignore[no-untyped-def]
    """Add up the rows of the source words ``first`` to ``last`` over several shards.

    Shard ``k`` has the entries ``bounds[k]:bounds[k + 1]``: ``sources`` (ascending), ``columns`` and ``counts``
    (entries, 2). Returns (row, columns, counts), columns sorted. Shards are added in order, so that sums are the same
    however the work was spread.
    """
    place = bounds[:-1].copy()
    row = np.zeros(last - first + 1, np.int64)
    merged_columns = np.empty(len(columns), np.int32)
    merged_counts = np.empty((len(columns), 2), np.float64)
    sums = np.zeros((target_size, 2))
    seen = np.zeros(target_size, np.bool_)
    touched = np.empty(target_size, np.int32)
    used = 0
    for word in range(first, last):
        number = 0
        for shard in range(len(place)):
            at = place[shard]
            while at < bounds[shard + 1] and sources[at] == word:
                target = columns[at]
                if not seen[target]:
                    seen[target] = True
                    touched[number] = target
                    number += 1
                sums[target, 0] += counts[at, 0]
                sums[target, 1] += counts[at, 1]
                at += 1
            place[shard] = at
        for target in np.sort(touched[:number]):
            merged_columns[used] = target
            merged_counts[used, 0], merged_counts[used, 1] = sums[target, 0], sums[target, 1]
            sums[target, 0] = sums[target, 1] = 0.0
            seen[target] = False
            used += 1
        row[word - first + 1] = used
    return row, merged_columns[:used].copy(), merged_counts[:used].copy()
