"""The inner loops over vectors and running text, compiled by numba: n-grams, nearest rows, sparsemax, co-occurrence."""

import numpy as np

from vocabtransfer.kernels import compiled

# fastText hashes n-grams with 32-bit FNV-1a over signed bytes; words are looked up here by the 64-bit one.
FNV32_OFFSET, FNV32_PRIME = np.uint32(2166136261), np.uint32(16777619)
FNV64_OFFSET, FNV64_PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
_CONTINUED, _LEAD_BITS, _SIGN = np.uint8(0x80), np.uint8(0xC0), np.uint32(0xFFFFFF00)


@compiled()
def scan_words(data, count, starts, ends, counts, labels):  # type: ignore[no-untyped-def]
    """Read ``count`` entries of a fastText dictionary: a word, a zero byte, its count (int64) and its type (int8).

    Fills the spans, counts and types; returns where the entries end, or -1 where ``data`` (uint8) ends before them.
    """
    at = 0
    for i in range(count):
        starts[i] = at
        while at < len(data) and data[at] != 0:
            at += 1
        ends[i] = at
        if at + 10 > len(data):
            return -1
        value = np.uint64(0)
        for k in range(8):
            value |= np.uint64(data[at + 1 + k]) << np.uint64(8 * k)
        counts[i] = np.int64(value)
        labels[i] = data[at + 9]
        at += 10
    return at


@compiled()
def hash_words(data, starts, ends, hashes):  # type: ignore[no-untyped-def]
    """Fill the 64-bit FNV-1a hash of every span of ``data`` (uint8)."""
    for i in range(len(starts)):
        value = FNV64_OFFSET
        for at in range(starts[i], ends[i]):
            value = (value ^ np.uint64(data[at])) * FNV64_PRIME
        hashes[i] = value


@compiled()
def subword_rows(data, bounds, own, shortest, longest, buckets, first, indptr, indices):  # type: ignore[no-untyped-def]
    """Find the rows of fastText's input matrix that make up words, each given as ``<word>`` in UTF-8.

    Word ``i`` is ``data[bounds[i]:bounds[i + 1]]``; ``own[i]`` is its row if it is in the dictionary, else -1. N-grams of
    ``shortest`` to ``longest`` characters hash into ``buckets`` rows from row ``first`` on. With an empty ``indices``
    only ``indptr`` is filled.
    """
    fill = len(indices) > 0
    used = 0
    for i in range(len(bounds) - 1):
        begin, stop = bounds[i], bounds[i + 1]
        if own[i] >= 0:
            if fill:
                indices[used] = own[i]
            used += 1
        at = begin
        # "<>" stands for no word at all.
        while buckets > 0 and stop - begin > 2 and at < stop:
            if data[at] & _LEAD_BITS == _CONTINUED:
                at += 1
                continue
            value = FNV32_OFFSET
            length, end = 0, at
            while end < stop and length < longest:
                lead = True
                while end < stop and (lead or data[end] & _LEAD_BITS == _CONTINUED):
                    byte = np.uint32(data[end])
                    if byte >= 128:
                        byte |= _SIGN
                    value = np.uint32((value ^ byte) * FNV32_PRIME)
                    end += 1
                    lead = False
                length += 1
                # The boundary marks alone are no n-grams.
                if length >= shortest and not (length == 1 and (at == begin or end == stop)):
                    if fill:
                        indices[used] = first + np.int64(value % np.uint32(buckets))
                    used += 1
            at += 1
        indptr[i + 1] = used


@compiled()
def largest(values, columns, found):  # type: ignore[no-untyped-def]
    """Fill the columns of the largest values of each row, largest first, and the values; of equal ones the first."""
    count = columns.shape[1]
    for i in range(values.shape[0]):
        filled = 0
        for j in range(values.shape[1]):
            value = values[i, j]
            if filled == count and value <= found[i, count - 1]:
                continue
            if filled < count:
                filled += 1
            place = filled - 1
            while place > 0 and found[i, place - 1] < value:
                found[i, place], columns[i, place] = found[i, place - 1], columns[i, place - 1]
                place -= 1
            found[i, place], columns[i, place] = value, j


@compiled()
def sparsemax(values, columns, weights, lengths):  # type: ignore[no-untyped-def]
    """Fill each row's sparsemax: columns in rising order, weights, and how many there are.

    Michelot's algorithm: the threshold of a set of candidates drops those below it, until none is. A row whose support
    is wider than the room in ``columns`` gets the sparsemax over its largest values alone.
    """
    room = columns.shape[1]
    kept = np.empty(values.shape[1], np.int32)
    for i in range(values.shape[0]):
        row = values[i]
        top = row[0]
        for j in range(1, len(row)):
            top = max(top, row[j])
        # The largest weight is at most 1, so nothing that lies 1 below the largest value has any.
        count, total = 0, 0.0
        for j in range(len(row)):
            if row[j] > top - 1:
                kept[count] = j
                total += row[j]
                count += 1
        while True:
            threshold = (total - 1) / count
            before, count, total = count, 0, 0.0
            for place in range(before):
                j = kept[place]
                if row[j] > threshold:
                    kept[count] = j
                    total += row[j]
                    count += 1
            if count == before:
                if count <= room:
                    break
                order = np.argsort(-row[kept[:count]], kind="mergesort")[:room]
                kept[:room] = np.sort(kept[:count][order])
                count, total = room, 0.0
                for place in range(count):
                    total += row[kept[place]]
        lengths[i] = count
        for place in range(count):
            columns[i, place] = kept[place]
            weights[i, place] = row[kept[place]] - threshold


@compiled()
def window_pairs(ids, ends, context, window, rows, columns, weights):  # type: ignore[no-untyped-def]
    """List which tokens stand within ``window`` of which, weighted by 1 / distance; return how many pairs there are.

    ``ids`` are the tokens of several texts, one ending at each of ``ends``; a pair's column is ``context[token]``, and
    tokens without one (-1) are no context. Each pair of places is listed in both directions.
    """
    used, begin = 0, 0
    for stop in ends:
        for i in range(begin, stop):
            for j in range(i + 1, min(i + 1 + window, stop)):
                weight = 1.0 / (j - i)
                if context[ids[j]] >= 0:
                    rows[used], columns[used], weights[used] = ids[i], context[ids[j]], weight
                    used += 1
                if context[ids[i]] >= 0:
                    rows[used], columns[used], weights[used] = ids[j], context[ids[i]], weight
                    used += 1
        begin = stop
    return used
