"""The word aligner's statistics: a hidden Markov model over word positions, inferred with collapsed counts.

Each direction explains the words of one side by the words of the other (Vogel, Ney and Tillmann 1996), with null words
(Och and Ney 2003) and a sparse Dirichlet prior on translations. Inference is collapsed variational Bayes of order zero
(Asuncion, Welling, Smyth and Teh 2009): every sentence is explained by the counts of all *other* sentences, so a rare
word cannot prove itself right by its own single occurrence. That is what Gibbs samplers such as eflomal do by drawing
links at random; here expected links take the place of drawn ones, so that a handful of sweeps is enough and every run
gives the same result. Sentences are visited in order and the two directions never meet, hence neither do threads matter.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_kernels import (
    DIAGONAL,
    FROZEN,
    LEXICAL,
    SEQUENCE,
    find_cells,
    match_cells,
    sweep,
)
from vocabtransfer.alignment.aligner_text import NumberedText
from vocabtransfer.progress import track

# Chosen by alignment error rate on English-French and English-Czech; see benchmarks/alignment.py.
PRIOR = 0.001
ALIKE_PRIOR = 1.0
NULL_PRIOR = 0.001
NULL_SHARE = 0.1
JUMP_PRIOR = 0.5
STAGES = (DIAGONAL, LEXICAL, LEXICAL, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE)

# Jumps further than this share one probability.
_FAR = 64
# Statistics are taken from at most this many cells, evenly spread over the corpus; 20 bytes each, 1 GB in all.
_TRAINED_CELLS = 50_000_000
_BLOCK_CELLS = 10_000_000


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Link probabilities of some sentence pairs, in both directions.

    ``sentences`` are their numbers in the corpus. The cells of pair ``k`` (source words x target words, row by row)
    start at ``base[k]``. ``forward`` (cells, float32) is the probability that the target word comes from the source
    word, ``backward`` the reverse; ``forward_null`` (target words) and ``backward_null`` (source words) that it comes
    from nothing.
    """

    sentences: NDArray[np.int64]
    source: NumberedText
    target: NumberedText
    base: NDArray[np.int64]
    forward: NDArray[np.float32]
    backward: NDArray[np.float32]
    forward_null: NDArray[np.float32]
    backward_null: NDArray[np.float32]


class _Direction:
    """Counts of one direction, and how to sweep over sentences with them."""

    def __init__(
        self,
        slot_words: NDArray[np.int32],
        sizes: tuple[int, int],
        alike: NDArray[np.bool_],
        longest: int,
        transposed: bool,
    ) -> None:
        given_size, made_size = sizes
        self.transposed = transposed
        self.alike = alike
        self.counts = np.zeros(len(slot_words))
        self.totals = np.zeros(given_size)
        self.strength = PRIOR * made_size + np.bincount(slot_words[alike], minlength=given_size) * ALIKE_PRIOR
        self.null_counts = np.zeros(made_size)
        self.null_total = 0.0
        self.distances = np.arange(-longest, longest + 1)
        self.jumps = np.exp(-np.abs(np.clip(self.distances, -_FAR, _FAR) - 1) / 4.0)

    def sweep(
        self,
        stage: int,
        given: NumberedText,
        made: NumberedText,
        cells: tuple[NDArray[np.int64], NDArray[np.int32]],
        posterior: NDArray[np.float32],
        null_posterior: NDArray[np.float32],
    ) -> None:
        """Sweep over sentences once; past the lexical stages the jumps are estimated anew from what was expected."""
        self.null_total, jumps = sweep(
            given.starts, given.ids, made.starts, made.ids, *cells, self.transposed,
            self.counts, self.totals, self.alike, ALIKE_PRIOR, self.strength, self.null_counts, self.null_total,
            posterior, null_posterior, self.jumps, NULL_SHARE, PRIOR, NULL_PRIOR, stage,
        )  # fmt: skip
        if stage == SEQUENCE:
            self.jumps = self._smooth(jumps)

    def _smooth(self, expected: NDArray[np.float64]) -> NDArray[np.float64]:
        near = np.clip(self.distances, -_FAR, _FAR) + _FAR
        pooled = np.bincount(near, expected) + JUMP_PRIOR
        return (pooled / pooled.sum())[near]


def infer_links(source: NumberedText, target: NumberedText, sentences: NDArray[np.int64]) -> Iterator[Posteriors]:
    """Yield the link probabilities of the given sentence pairs, all of which have words on both sides.

    A corpus past 50 million cells gives its statistics by an evenly spread part of it, which comes first; the rest is
    explained by what was found there. Memory beyond the text itself stays near 1 GB.
    """
    cells = source.lengths[sentences] * target.lengths[sentences]
    every = max(1, -(-int(cells.sum()) // _TRAINED_CELLS))
    trained, others = sentences[::every], np.delete(sentences, np.s_[::every])
    sizes = len(source.words), len(target.words)
    given, made = source.take(trained), target.take(trained)
    base, slots, row, columns = find_cells(given.starts, given.ids, made.starts, made.ids, *sizes)
    words = np.repeat(np.arange(sizes[0], dtype=np.int32), np.diff(row))
    alike = _same_words(source, target)[words] == columns
    longest = int(max(source.lengths[sentences].max(), target.lengths[sentences].max()))
    ways = (
        _Direction(words, sizes, alike, longest, transposed=False),
        _Direction(columns, sizes[::-1], alike, longest, transposed=True),
    )
    block = _empty(trained, given, made, base)
    with ThreadPoolExecutor(2) as pool:
        for stage in track(STAGES, "aligning words"):
            _sweep_both(pool, ways, stage, block, slots)
        yield block
        del block, slots
        for part in _blocks(others, source.lengths * target.lengths):
            given, made = source.take(part), target.take(part)
            base, slots = match_cells(given.starts, given.ids, made.starts, made.ids, row, columns, sizes[1])
            block = _empty(part, given, made, base)
            _sweep_both(pool, ways, FROZEN, block, slots)
            yield block


def _sweep_both(
    pool: ThreadPoolExecutor,
    ways: tuple[_Direction, _Direction],
    stage: int,
    block: Posteriors,
    slots: NDArray[np.int32],
) -> None:
    cells = (block.base, slots)
    tasks = [
        pool.submit(ways[0].sweep, stage, block.source, block.target, cells, block.forward, block.forward_null),
        pool.submit(ways[1].sweep, stage, block.target, block.source, cells, block.backward, block.backward_null),
    ]
    for task in tasks:
        task.result()


def _empty(
    sentences: NDArray[np.int64], source: NumberedText, target: NumberedText, base: NDArray[np.int64]
) -> Posteriors:
    sizes = (int(base[-1]), int(base[-1]), len(target.ids), len(source.ids))
    return Posteriors(sentences, source, target, base, *(np.zeros(size, np.float32) for size in sizes))


def _blocks(sentences: NDArray[np.int64], cells: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    ends = np.cumsum(cells[sentences])
    bounds = np.searchsorted(ends, np.arange(_BLOCK_CELLS, int(ends[-1]) if len(ends) else 0, _BLOCK_CELLS))
    return (part for part in np.split(sentences, bounds) if len(part))


def _same_words(source: NumberedText, target: NumberedText) -> NDArray[np.int64]:
    """Return for each source word the number of the target word of the same letters, -1 where there is none."""
    index = {word: number for number, word in enumerate(target.words)}
    return np.array([index.get(word, -1) for word in source.words], dtype=np.int64)
