"""A dictionary as evidence: its entries counted as word pairs, to stand beside the links of aligned sentences."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from vocabtransfer.alignment.table import WordTable, merge_tables
from vocabtransfer.alignment.words import fold_marks, split_words
from vocabtransfer.errors import UsageError, VocabTransferError

#: How many links in sentences an entry is worth. A link may be an accident, an entry was written by someone.
ENTRY_WEIGHT = 3.0


def dictionary_table(
    entries: Iterable[tuple[str, str]],
    *,
    weight: float = ENTRY_WEIGHT,
    spellings: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> WordTable:
    """Return a table in which every entry counts ``weight`` links, shared evenly among the word pairs of its two terms.

    ``spellings`` give, for the words of each side and for these with their marks folded, how they are to be written.

    "give up" to "abandonner" is half a link of "give" and half of "up". An entry that stands there twice counts once.
    Raises `UsageError` for a weight of 0 or less and `VocabTransferError` when no entry has words on both sides.
    """
    if weight <= 0:
        raise UsageError(f"the weight of dictionary entries is {weight:g}: it must be more than 0.")
    links: defaultdict[tuple[str, str], float] = defaultdict(float)
    totals: tuple[defaultdict[str, float], defaultdict[str, float]] = (defaultdict(float), defaultdict(float))
    used = 0
    for source, target in dict.fromkeys(entries):
        sides = [
            [written.get(word, written.get(fold_marks(word), word)) for word in split_words(text)]
            for text, written in zip((source, target), spellings, strict=True)
        ]
        if not sides[0] or not sides[1]:
            continue
        used += 1
        share = weight / (len(sides[0]) * len(sides[1]))
        for total, words in zip(totals, sides, strict=True):
            for word in words:
                total[word] += weight / len(words)
        for one in sides[0]:
            for other in sides[1]:
                links[one, other] += share
    if not used:
        raise VocabTransferError("the dictionary has no entry with words on both sides.")
    numbers = [{word: number for number, word in enumerate(sorted(total))} for total in totals]
    table = WordTable.from_pairs(
        numbers[0],
        numbers[1],
        (
            np.array([numbers[0][one] for one, _ in links], dtype=np.int64),
            np.array([numbers[1][other] for _, other in links], dtype=np.int64),
            np.array(list(links.values())),
        ),
        np.array([totals[0][word] for word in numbers[0]]),
        np.array([totals[1][word] for word in numbers[1]]),
    )
    table.metadata["dictionary_entries"] = used  # type: ignore[index]  # it is a dict, and this table is ours
    return table


def with_dictionary(table: WordTable, entries: Iterable[tuple[str, str]], *, weight: float = ENTRY_WEIGHT) -> WordTable:
    """Return ``table`` with the entries of a dictionary counted too; its metadata says how many.

    How often words occur stays what the sentences say, and a word that only the dictionary has occurs as often as its
    entries count. Raises what `dictionary_table` raises.
    """
    # A headword counts for the word of the sentences, with whatever marks it is typed there.
    spellings = [
        {fold_marks(word): word for _, word in sorted(zip(totals.tolist(), words, strict=True))}
        | {word: word for word in words}
        for words, totals in ((table.source_words, table.source_totals), (table.target_words, table.target_totals))
    ]
    extra = dictionary_table(entries, weight=weight, spellings=(spellings[0], spellings[1]))
    merged = merge_tables([table, extra])
    metadata = {**merged.metadata, "dictionary_entries": extra.metadata["dictionary_entries"]}
    if "pairs" in table.metadata:
        metadata["pairs"] = table.metadata["pairs"]
    known = dict(zip(table.target_words, table.target_totals.tolist(), strict=True))
    totals = [
        max(known[word], 1e-6) if word in known else total
        for word, total in zip(merged.target_words, merged.target_totals.tolist(), strict=True)
    ]
    # Links may not outnumber what a word occurs: shares of links are taken of the totals.
    linked = np.asarray(merged.counts.sum(axis=1)).ravel()
    return WordTable(
        merged.source_words,
        merged.target_words,
        merged.counts,
        merged.source_totals,
        np.maximum(np.array(totals, dtype=np.float32), linked.astype(np.float32)),
        metadata,
    )
