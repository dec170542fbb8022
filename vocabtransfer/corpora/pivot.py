"""Pairs and counts by way of a third language, where direct ones are few."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import sparse

from vocabtransfer.alignment.table import WordTable

#: A string with more renderings than this ("OK", "None") says nothing about which belongs to which.
MOST_RENDERINGS = 8


def join_pairs(first: Iterable[tuple[str, str]], second: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (text of the first, text of the second) for every pivot sentence that both have, each pair once.

    Both give (pivot, text). A pivot with more than 8 renderings on a side is passed over: it is ambiguous.

    >>> list(join_pairs([("Open", "Открыть"), ("Close", "Закрыть")], [("Open", "Ачу"), ("Save", "Саклау")]))
    [('Открыть', 'Ачу')]
    """
    known: dict[str, list[str]] = defaultdict(list)
    for pivot, text in first:
        known[pivot].append(text)
    renderings: dict[str, list[str]] = defaultdict(list)
    for pivot, text in second:
        if pivot in known:
            renderings[pivot].append(text)
    seen: set[tuple[str, str]] = set()
    for pivot, texts in renderings.items():
        ours, others = dict.fromkeys(known[pivot]), dict.fromkeys(texts)
        if max(len(ours), len(others)) > MOST_RENDERINGS:
            continue
        for pair in ((one, other) for one in ours for other in others):
            if pair not in seen:
                seen.add(pair)
                yield pair


def pivot_table(to_pivot: WordTable, from_pivot: WordTable, *, least: float = 0.05, trust: float = 0.5) -> WordTable:
    """Return the counts of source and target words that one pivot language links: en-ru and ru-tt give en-tt.

    ``to_pivot`` counts (source, pivot), ``from_pivot`` (pivot, target). A target word's count is shared among the
    source words by ``p(source | pivot)``, as in pivot-based phrase tables (Wu and Wang 2007); links that get less than
    ``least`` of it are dropped, and all counts are multiplied by ``trust``, for a link by way of a third language is
    worth less than a direct one. Words are as often as ``from_pivot`` and the links say.
    """
    index = {word: number for number, word in enumerate(to_pivot.target_words)}
    columns = np.array([index.get(word, -1) for word in from_pivot.source_words], dtype=np.int64)
    shared = np.flatnonzero(columns >= 0)
    counts = sparse.csr_array(from_pivot.counts[:, shared], dtype=np.float64)
    rows = sparse.csr_array(to_pivot.counts[columns[shared]], dtype=np.float64)
    sums = np.asarray(rows.sum(axis=1)).ravel()
    inverse = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    share = sparse.csr_array(sparse.diags_array(inverse) @ rows)
    share.data[share.data < least] = 0.0
    share.eliminate_zeros()
    links = (counts @ share * trust).tocoo()
    target, source = links.coords
    source_totals = np.maximum(np.bincount(source, links.data, len(to_pivot.source_words)), 1e-6)
    metadata = {
        "source": to_pivot.metadata.get("source"),
        "target": from_pivot.metadata.get("target"),
        "pivot": from_pivot.metadata.get("source"),
        "pairs": from_pivot.metadata.get("pairs", 0),
    }
    return WordTable.from_pairs(
        to_pivot.source_words,
        from_pivot.target_words,
        (source, target, links.data),
        source_totals,
        trust * from_pivot.target_totals,
        {key: value for key, value in metadata.items() if value is not None},
    )
