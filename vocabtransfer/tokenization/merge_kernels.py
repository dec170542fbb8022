"""The inner loops of byte-pair encoding, compiled by numba: merging counted words, and learning which pair comes next.

Symbols are token ids; a negative symbol is a character without a token, which no merge touches. Words lie one after the
other in one array. A pair of symbols is one int64 key, and keys are found through open addressing.
"""

import numpy as np

from vocabtransfer.kernels import compiled

NO_RANK = np.int32(2**31 - 1)
EMPTY = np.int64(-1)


# --- a table of pairs -----------------------------------------------------------------------------------------------


@compiled()
def pair_key(left, right):  # type: ignore[no-untyped-def]
    """Return the key of a pair of symbols that are not negative."""
    return (np.int64(left) << np.int64(32)) | np.int64(right)


@compiled()
def place_of(keys, key):  # type: ignore[no-untyped-def]
    """Return where ``key`` lies in a table of 2**n keys, or the free place where it belongs."""
    mask = np.int64(len(keys) - 1)
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed ^ (mixed >> np.uint64(29))) & mask
    while keys[place] != EMPTY and keys[place] != key:
        place = (place + 1) & mask
    return place


@compiled()
def fill_table(keys, values, new_keys):  # type: ignore[no-untyped-def]
    """Enter every key with its number as the value; of equal keys the first counts."""
    for number in range(len(new_keys)):
        place = place_of(keys, new_keys[number])
        if keys[place] == EMPTY:
            keys[place] = new_keys[number]
            values[place] = number


# --- merging words --------------------------------------------------------------------------------------------------


@compiled()
def rank_of(left, right, keys, ranks):  # type: ignore[no-untyped-def]
    """Return the rank of the merge of two symbols, `NO_RANK` if there is none."""
    if left < 0 or right < 0:
        return NO_RANK
    place = place_of(keys, pair_key(left, right))
    return ranks[place] if keys[place] != EMPTY else NO_RANK


@compiled()
def merge_words(starts, symbols, keys, ranks, products, weights, drops):  # type: ignore[no-untyped-def]
    """Merge every word until no merge applies, always the lowest rank first, the leftmost of equal ones first.

    Works in place: word i begins at ``starts[i]`` and keeps the first ``lengths[i]`` of its symbols. Returns lengths,
    int64 (n), and the rank of each word's last merge, int32 (n), -1 for a word without one. ``drops[r]`` grows by the
    word's weight for every merge that a tokenizer would still make whose merges end at rank r: the vocabulary of a BPE
    tokenizer of any smaller size is the beginning of this one.
    """
    words = len(starts) - 1
    lengths = np.empty(words, np.int64)
    last = np.full(words, np.int32(-1), np.int32)
    longest = 0
    for word in range(words):
        longest = max(longest, starts[word + 1] - starts[word])
    waiting = np.empty(longest + 1, np.int32)
    for word in range(words):
        first, length = starts[word], starts[word + 1] - starts[word]
        for i in range(length - 1):
            waiting[i] = rank_of(symbols[first + i], symbols[first + i + 1], keys, ranks)
        highest = np.int32(-1)
        while True:
            best, at = NO_RANK, -1
            for i in range(length - 1):
                if waiting[i] < best:
                    best, at = waiting[i], i
            if at < 0:
                break
            symbols[first + at] = products[best]
            for i in range(at + 1, length - 1):
                symbols[first + i] = symbols[first + i + 1]
            for i in range(at + 1, length - 2):
                waiting[i] = waiting[i + 1]
            length -= 1
            if at > 0:
                waiting[at - 1] = rank_of(symbols[first + at - 1], symbols[first + at], keys, ranks)
            if at < length - 1:
                waiting[at] = rank_of(symbols[first + at], symbols[first + at + 1], keys, ranks)
            last[word] = best
            highest = max(highest, best)
            if len(drops):
                drops[highest] += weights[word]
        lengths[word] = length
    return lengths, last


# --- learning merges ------------------------------------------------------------------------------------------------


@compiled()
def link_symbols(starts, symbols):  # type: ignore[no-untyped-def]
    """Return (following, preceding, word): for every symbol its neighbours' places, -1 at the edges, and its word."""
    following = np.empty(len(symbols), np.int32)
    preceding = np.empty(len(symbols), np.int32)
    word_of = np.empty(len(symbols), np.int32)
    for word in range(len(starts) - 1):
        for i in range(starts[word], starts[word + 1]):
            following[i] = i + 1 if i + 1 < starts[word + 1] else -1
            preceding[i] = i - 1 if i > starts[word] else -1
            word_of[i] = word
    return following, preceding, word_of


@compiled()
def add_pair(left, right, weight, at, keys, slots, slot_keys, counts, heads, sizes, place, then, used):  # type: ignore[no-untyped-def]
    """Count a pair that begins at symbol ``at``; return its slot. ``used`` holds the numbers of slots and of places."""
    key = pair_key(left, right)
    entry = place_of(keys, key)
    if keys[entry] == EMPTY:
        keys[entry] = key
        slots[entry] = used[0]
        slot_keys[used[0]] = key
        counts[used[0]] = 0
        heads[used[0]] = -1
        sizes[used[0]] = 0
        used[0] += 1
    slot = slots[entry]
    counts[slot] += weight
    sizes[slot] += 1
    place[used[1]] = at
    then[used[1]] = heads[slot]
    heads[slot] = used[1]
    used[1] += 1
    return slot


@compiled()
def index_pairs(symbols, following, word_of, weights, keys, slots, slot_keys, counts, heads, sizes, place, then, used):  # type: ignore[no-untyped-def]
    """Count all pairs of neighbours and note where each begins."""
    for i in range(len(symbols)):
        j = following[i]
        if j >= 0 and symbols[i] >= 0 and symbols[j] >= 0:
            weight = weights[word_of[i]]
            add_pair(symbols[i], symbols[j], weight, i, keys, slots, slot_keys, counts, heads, sizes, place, then, used)


@compiled()
def apply_merge(  # type: ignore[no-untyped-def]
    slot, product, symbols, following, preceding, word_of, weights,
    keys, slots, slot_keys, counts, heads, sizes, place, then, used,
):  # fmt: skip
    """Replace a pair by ``product`` wherever it stands, keep all counts up to date; return the slots that grew."""
    left, right = np.int32(slot_keys[slot] >> 32), np.int32(slot_keys[slot] & 0xFFFFFFFF)
    found = np.empty(sizes[slot], np.int32)
    at = heads[slot]
    for i in range(len(found)):
        found[i] = place[at]
        at = then[at]
    found.sort()  # from left to right: of "aaa" the first two are merged
    grown = np.empty(2 * len(found), np.int32)
    growths = 0
    for i in found:
        j = following[i]
        if symbols[i] != left or j < 0 or symbols[j] != right:
            continue
        weight = weights[word_of[i]]
        before, after = preceding[i], following[j]
        if before >= 0 and symbols[before] >= 0:
            counts[slots[place_of(keys, pair_key(symbols[before], left))]] -= weight
        if after >= 0 and symbols[after] >= 0:
            counts[slots[place_of(keys, pair_key(right, symbols[after]))]] -= weight
        symbols[i] = product
        symbols[j] = -2
        following[i] = after
        if after >= 0:
            preceding[after] = i
        if before >= 0 and symbols[before] >= 0:
            grown[growths] = add_pair(
                symbols[before], product, weight, before,
                keys, slots, slot_keys, counts, heads, sizes, place, then, used,
            )  # fmt: skip
            growths += 1
        if after >= 0 and symbols[after] >= 0:
            grown[growths] = add_pair(
                product, symbols[after], weight, i,
                keys, slots, slot_keys, counts, heads, sizes, place, then, used,
            )  # fmt: skip
            growths += 1
    counts[slot] = 0
    sizes[slot] = 0
    heads[slot] = -1
    return np.unique(grown[:growths])
