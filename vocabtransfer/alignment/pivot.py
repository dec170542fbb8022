"""Counts by way of a third language, where direct sentence pairs are few."""

import numpy as np
from scipy import sparse

from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.words import fold_marks
from vocabtransfer.errors import UsageError
from vocabtransfer.public import public


@public
def pivot_tables(to_pivot: WordTable, from_pivot: WordTable, *, least: float = 0.05, trust: float = 0.5) -> WordTable:
    """Return the counts of source and target words that one pivot language links: en-ru and ru-tt give en-tt.

    ``to_pivot`` counts (source, pivot), ``from_pivot`` (pivot, target). A target word's count is shared among the
    source words by ``p(source | pivot)``, as in pivot-based phrase tables (Wu and Wang 2007); links that get less than
    ``least`` of it are dropped, and all counts are multiplied by ``trust``, for a link by way of a third language is
    worth less than a direct one. Words are as often as ``from_pivot`` and the links say. Raises `UsageError` for shares
    out of range.
    """
    if not 0 < trust <= 1 or not 0 <= least < 1:
        raise UsageError(f"trust {trust:g} and least {least:g}: more than 0 to 1, and 0 to less than 1.")
    index = {word: number for number, word in enumerate(to_pivot.target_words)}
    # One word written with two marks meets where it is not found as it is written.
    folded = {fold_marks(word): number for word, number in index.items()}
    columns = np.array(
        [index.get(word, folded.get(fold_marks(word), -1)) for word in from_pivot.source_words], dtype=np.int64
    )
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
