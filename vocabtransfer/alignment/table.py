"""Word-pair counts: what a parallel corpus says about which words translate each other.

A `WordTable` is what an aligned corpus leaves behind, small enough to ship. On disk it is one compressed text file that
people can read and diff: a first line ``# {metadata as JSON}``, then sorted lines ``source<TAB>target<TAB>count``. Lines
with an empty target give how often the source word occurred at all, aligned or not, and the reverse.
"""

import importlib.resources
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vocabtransfer.alignment.table_file import FORMAT, read_table
from vocabtransfer.alignment.words import fold_marks
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import write_compressed
from vocabtransfer.public import public
from vocabtransfer.reprs import brief

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

# Where the tables lie beside a package that runs from a checkout.
CHECKOUT = Path(__file__).parents[2] / "data" / "alignments"
SUFFIXES = (".tsv", ".tsv.gz", ".tsv.xz", ".tsv.zst")
_FORBIDDEN = frozenset(map(chr, range(32)))


@dataclass(frozen=True, eq=False)
class WordTable:
    """Counts of aligned word pairs, with how often every word occurred.

    ``source_words`` and ``target_words`` are sorted and without repeats. ``counts`` is CSR float32 of shape (target
    words, source words), sorted indices, all values > 0. ``source_totals`` and ``target_totals`` (float32) count every
    occurrence of a word, aligned or not. ``metadata`` is JSON: ``source`` and ``target`` language codes, ``pairs``,
    ``provenance``, ``licence``, ``aligner``, whatever is known.
    """

    source_words: tuple[str, ...]
    target_words: tuple[str, ...]
    counts: sparse.csr_array
    source_totals: NDArray[np.float32]
    target_totals: NDArray[np.float32]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief(
            self, source_words=len(self.source_words), target_words=len(self.target_words), links=self.counts.nnz
        )

    @classmethod
    @public
    def from_pairs(
        cls,
        source_words: Iterable[str],
        target_words: Iterable[str],
        links: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], NDArray[np.floating[Any]]],
        source_totals: NDArray[np.floating[Any]],
        target_totals: NDArray[np.floating[Any]],
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Build a table from words in any order (no repeats) and links (source index, target index, count), summed."""
        source_sorted, source_order = _sort_words(source_words)
        target_sorted, target_order = _sort_words(target_words)
        source, target, weights = links
        for ids, words, totals in ((source, source_sorted, source_totals), (target, target_sorted, target_totals)):
            inside = ids.size == 0 or 0 <= ids.min() <= ids.max() < len(words)
            if len(totals) != len(words) or ids.shape != weights.shape or not inside:
                raise UsageError("links are indices of words with a count each, and every word has a total.")
        shape = (len(target_sorted), len(source_sorted))
        places = (np.argsort(target_order)[target], np.argsort(source_order)[source])
        counts = sparse.coo_array((weights.astype(np.float64), places), shape=shape).tocsr()
        return cls(
            source_sorted,
            target_sorted,
            _tidy(counts),
            source_totals[source_order].astype(np.float32),
            target_totals[target_order].astype(np.float32),
            dict(metadata or {}),
        )

    @cached_property
    def _target_spellings(self) -> Mapping[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(self.target_words):
            found[fold_marks(word)].append(index)
        return found

    @public
    def lookup(self, word: str) -> list[tuple[str, float]]:
        """Return the source words aligned with a target word, with their counts, most frequent first.

        What is typed for one letter is one: O‘zbek, O'zbek and Oʻzbek are looked up together.
        """
        total: defaultdict[int, float] = defaultdict(float)
        for row in self._target_spellings.get(fold_marks(word), ()):
            start, stop = self.counts.indptr[row], self.counts.indptr[row + 1]
            for index, count in zip(
                self.counts.indices[start:stop].tolist(), self.counts.data[start:stop], strict=True
            ):
                total[index] += float(count)
        found = ((self.source_words[index], count) for index, count in total.items())
        return sorted(found, key=lambda item: (-item[1], item[0]))

    @public
    def occurrences(self, word: str) -> float:
        """Return how often a target word occurs, with whatever marks it is typed; 0.0 for one that never does."""
        return float(sum(self.target_totals[row] for row in self._target_spellings.get(fold_marks(word), ())))

    def flip(self) -> Self:
        """Return the table with source and target exchanged, languages in the metadata included."""
        metadata = dict(self.metadata)
        for one, other in (("source", "target"), ("target", "source")):
            metadata.pop(one, None)
            if other in self.metadata:
                metadata[one] = self.metadata[other]
        return replace(
            self,
            source_words=self.target_words,
            target_words=self.source_words,
            counts=_tidy(self.counts.T.tocsr()),
            source_totals=self.target_totals,
            target_totals=self.source_totals,
            metadata=metadata,
        )

    @public
    def prune(self, min_count: float = 0.0, min_share: float = 0.0, min_total: float = 0.0) -> Self:
        """Return the table without its thin evidence.

        Dropped are links counted less than ``min_count`` times, links that make up less than ``min_share`` of the
        occurrences of both their words, and words that occur less than ``min_total`` times, together with their links.
        """
        links = self.counts.tocoo()
        target, source = links.coords
        share = links.data / np.minimum(self.source_totals[source], self.target_totals[target])
        keep_source, keep_target = self.source_totals >= min_total, self.target_totals >= min_total
        keep = (links.data >= min_count) & (share >= min_share) & keep_source[source] & keep_target[target]
        kept = sparse.coo_array((links.data[keep], (target[keep], source[keep])), shape=links.shape).tocsr()
        rows, columns = np.flatnonzero(keep_target), np.flatnonzero(keep_source)
        return replace(
            self,
            source_words=tuple(self.source_words[index] for index in columns),
            target_words=tuple(self.target_words[index] for index in rows),
            counts=_tidy(kept[rows][:, columns]),
            source_totals=self.source_totals[columns],
            target_totals=self.target_totals[rows],
        )

    @public
    def save(self, path: str | Path) -> None:
        """Write the table as ``.tsv``, ``.tsv.gz``, ``.tsv.xz`` or ``.tsv.zst``; the same table gives the same bytes.

        Counts keep three significant digits. The file appears whole or not at all. Raises `VocabTransferError` for
        other names, for words with control characters and when the file cannot be written.
        """
        path = Path(path)
        if not path.name.endswith(SUFFIXES):
            raise VocabTransferError(f"{path}: a word table is a file named {', '.join('*' + s for s in SUFFIXES)}.")
        for word in (*self.source_words, *self.target_words):
            if not word or not _FORBIDDEN.isdisjoint(word):
                raise VocabTransferError(f"{path}: the word {word!r} is empty or holds a control character.")
        header = json.dumps({"format": FORMAT, **self.metadata}, ensure_ascii=False, sort_keys=True)
        lines = [f"\t{word}\t{_digits(count)}\n" for word, count in _totals(self.target_words, self.target_totals)]
        by_source = self.flip()
        bounds = by_source.counts.indptr.tolist()
        targets = [self.target_words[index] for index in by_source.counts.indices.tolist()]
        counts = list(map(_digits, by_source.counts.data.tolist()))
        for row, (word, total) in enumerate(_totals(self.source_words, self.source_totals)):
            lines.append(f"{word}\t\t{_digits(total)}\n")
            span = slice(bounds[row], bounds[row + 1])
            lines += [f"{word}\t{target}\t{count}\n" for target, count in zip(targets[span], counts[span], strict=True)]
        write_compressed(path, f"# {header}\n{''.join(lines)}".encode())

    @classmethod
    @public
    def load(cls, path: str | Path) -> Self:
        """Read a table that `save` wrote, or one made by hand in the same form (lines in any order).

        Where a side has no lines with totals at all, the sums of its counts stand in. Raises `VocabTransferError`,
        naming file and line, for anything else than a header and three columns with positive counts, each once, and for
        files that unfold to more than 512 MiB.
        """
        found = read_table(Path(path))
        return cls.from_pairs(
            found.source_words,
            found.target_words,
            found.links,
            found.source_totals,
            found.target_totals,
            found.metadata,
        )


@public
def merge_tables(tables: Iterable[WordTable], weights: Iterable[float] | None = None) -> WordTable:
    """Return the weighted sum of tables over the words of all; metadata is the first one's, with pairs added up."""
    tables = list(tables)
    factors = [1.0] * len(tables) if weights is None else list(weights)
    if not tables or len(factors) != len(tables) or min(factors) <= 0:
        raise VocabTransferError("merging needs at least one table, and one positive weight for each.")
    sources = sorted(set().union(*(table.source_words for table in tables)))
    targets = sorted(set().union(*(table.target_words for table in tables)))
    source_index = {word: index for index, word in enumerate(sources)}
    target_index = {word: index for index, word in enumerate(targets)}
    source_totals, target_totals = np.zeros(len(sources)), np.zeros(len(targets))
    parts = []
    for table, factor in zip(tables, factors, strict=True):
        columns = np.array([source_index[word] for word in table.source_words], dtype=np.int64)
        rows = np.array([target_index[word] for word in table.target_words], dtype=np.int64)
        source_totals[columns] += factor * table.source_totals
        target_totals[rows] += factor * table.target_totals
        links = table.counts.tocoo()
        parts.append((columns[links.coords[1]], rows[links.coords[0]], factor * links.data.astype(np.float64)))
    joined = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    metadata = dict(tables[0].metadata)
    if all("pairs" in table.metadata for table in tables):
        metadata["pairs"] = sum(table.metadata["pairs"] for table in tables)
    return WordTable.from_pairs(
        sources, targets, (joined[0], joined[1], joined[2]), source_totals, target_totals, metadata
    )


@public
def shipped_table(language: "Language") -> WordTable | None:
    """Return the English table that ships for a language, or None where there is none."""
    name = f"en-{language.tag}.tsv.xz"
    try:
        installed = importlib.resources.files("vocabtransfer_data") / "alignments" / name
    except ModuleNotFoundError:
        installed = CHECKOUT / name
    if not installed.is_file():
        return None
    with importlib.resources.as_file(installed) as path:
        return WordTable.load(path)


def _sort_words(words: Iterable[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    listed = list(words)
    order = sorted(range(len(listed)), key=listed.__getitem__)
    return tuple(listed[index] for index in order), np.array(order, dtype=np.int64)


def _tidy(counts: sparse.csr_array) -> sparse.csr_array:
    counts = sparse.csr_array(counts, dtype=np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _totals(words: tuple[str, ...], totals: NDArray[np.float32]) -> Iterable[tuple[str, float]]:
    return zip(words, totals.tolist(), strict=True)


def _digits(count: float) -> str:
    """Return a positive number with three significant digits, the shortest way: 12300, 45.6, 0.25."""
    text = f"{count:.3g}"
    return str(int(float(text))) if "e+" in text else text
