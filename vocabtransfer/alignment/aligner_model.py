"""The word aligner's statistics: a hidden Markov model over word positions, inferred with collapsed counts.

Each direction explains the words of one side by the words of the other (Vogel, Ney and Tillmann 1996), with null words
(Och and Ney 2003) and a sparse Dirichlet prior on translations. The translations of a word back off to those of its stem,
in the way of a hierarchical Dirichlet prior: a form seen twice is known by its kin, a frequent one by itself.

Inference is collapsed variational Bayes of order zero (Asuncion, Welling, Smyth and Teh 2009): every sentence is explained
by the counts of all *other* sentences, so a rare word cannot prove itself right by its own single occurrence. That is what
Gibbs samplers such as eflomal do by drawing links at random; here expected links take the place of drawn ones, so that a
handful of sweeps is enough and every run gives the same result. After each sweep of the chain the two directions agree:
both go on with the product of their links (Liang, Taskar and Klein 2006). Sentences are visited in order, and during a
sweep the directions share nothing, hence threads do not matter.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_kernels import (
    DIAGONAL,
    FROZEN,
    LEXICAL,
    SEQUENCE,
    Level,
    Settings,
    agree,
    cell_starts,
    find_cells,
    match_cells,
    sweep,
)
from vocabtransfer.alignment.aligner_text import NumberedText
from vocabtransfer.progress import track

# Chosen by alignment error rate on English-French and English-Czech; see benchmarks/alignment.py.
SETTINGS = Settings(prior=0.001, alike_prior=1.0, backoff=20.0, null_prior=0.001, null_share=0.1)
STAGES = (DIAGONAL, LEXICAL, SEQUENCE, SEQUENCE, SEQUENCE)
JUMP_PRIOR = 0.5

# Jumps further than this share one probability.
_FAR = 64
# Statistics are taken from at most this many cells, evenly spread over the corpus; some 25 bytes each, 1 GB in all.
_TRAINED_CELLS = 40_000_000
_BLOCK_CELLS = 10_000_000

Cells = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LevelledText:
    """One side of a corpus twice: as ``words`` without case, and as ``stems``, their first letters."""

    words: NumberedText
    stems: NumberedText

    def take(self, sentences: NDArray[np.int64]) -> "LevelledText":
        """Return the given sentences, over the same words."""
        return LevelledText(self.words.take(sentences), self.stems.take(sentences))

    def word_shares(self) -> NDArray[np.float64]:
        """Return which share of its stem's occurrences each word has."""
        words, stems = (np.bincount(text.ids, minlength=len(text.words)) for text in (self.words, self.stems))
        stem_of = np.zeros(len(self.words.words), dtype=np.int64)
        stem_of[self.words.ids] = self.stems.ids
        shares: NDArray[np.float64] = words / np.maximum(stems[stem_of], 1)
        return shares


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Link probabilities of some sentence pairs, in both directions.

    ``sentences`` are their numbers in the corpus. The cells of pair ``k`` (source words x target words, row by row)
    start at ``base[k]``. ``forward`` (cells, float32) is the probability that the target word comes from the source
    word, ``backward`` the reverse; ``forward_null`` (target words) and ``backward_null`` (source words) that it comes
    from nothing.
    """

    sentences: NDArray[np.int64]
    source: LevelledText
    target: LevelledText
    base: NDArray[np.int64]
    forward: NDArray[np.float32]
    backward: NDArray[np.float32]
    forward_null: NDArray[np.float32]
    backward_null: NDArray[np.float32]


class _Direction:
    """Counts of one direction, and how to sweep over sentences with them."""

    def __init__(
        self,
        given: LevelledText,
        made: LevelledText,
        pairs: tuple[int, int],
        alike: NDArray[np.bool_],
        stem_pairs: Cells,
        longest: int,
        transposed: bool,
    ) -> None:
        self.transposed = transposed
        self.alike = alike
        sizes = len(given.stems.words), len(given.words.words)
        self.counts = [(np.zeros(size), np.zeros(total)) for size, total in zip(pairs, sizes, strict=True)]
        self.strength = SETTINGS.prior * len(made.stems.words) + SETTINGS.alike_prior * np.bincount(
            stem_pairs[alike], minlength=sizes[0]
        )
        self.word_share = made.word_shares()
        self.null_counts = np.zeros(len(made.stems.words))
        self.distances = np.arange(-longest, longest + 1)
        self.jumps = np.exp(-np.abs(np.clip(self.distances, -_FAR, _FAR) - 1) / 4.0)

    def levels(self, given: LevelledText, made: LevelledText, slots: tuple[Cells, Cells]) -> tuple[Level, Level]:
        """Return the counts as the kernels take them, stems and words, together with the sentences to visit."""
        stems, words = self.counts
        return (
            Level(given.stems.ids, made.stems.ids, slots[0], *stems),
            Level(given.words.ids, made.words.ids, slots[1], *words),
        )

    def sweep(
        self,
        stage: int,
        given: LevelledText,
        made: LevelledText,
        base: NDArray[np.int64],
        slots: tuple[Cells, Cells],
        posterior: NDArray[np.float32],
        null_posterior: NDArray[np.float32],
    ) -> None:
        """Sweep over sentences once; past the lexical stages the jumps are estimated anew from what was expected."""
        jumps = sweep(
            stage, given.words.starts, made.words.starts, base, self.transposed, *self.levels(given, made, slots),
            self.word_share, self.alike, self.strength, self.null_counts, self.jumps, posterior, null_posterior, SETTINGS,
        )  # fmt: skip
        if stage == SEQUENCE:
            near = np.clip(self.distances, -_FAR, _FAR) + _FAR
            pooled = np.bincount(near, jumps) + JUMP_PRIOR
            self.jumps = (pooled / pooled.sum())[near]


def infer_links(source: LevelledText, target: LevelledText, sentences: NDArray[np.int64]) -> Iterator[Posteriors]:
    """Yield the link probabilities of the given sentence pairs, all of which have words on both sides.

    A corpus past 40 million cells gives its statistics by an evenly spread part of it, which comes first; the rest is
    explained by what was found there. Memory beyond the text itself stays near 1 GB.
    """
    cells = source.words.lengths * target.words.lengths
    every = max(1, -(-int(cells[sentences].sum()) // _TRAINED_CELLS))
    trained, others = sentences[::every], np.delete(sentences, np.s_[::every])
    given, made = source.take(trained), target.take(trained)
    found = [_find(given.stems, made.stems), _find(given.words, made.words)]
    slots = found[0].pop("slots"), found[1].pop("slots")
    base = found[0]["base"]
    stem_pairs = np.repeat(np.arange(len(source.stems.words), dtype=np.int32), np.diff(found[0]["row"]))
    alike = _same_words(source.stems, target.stems)[stem_pairs] == found[0]["columns"]
    pairs = len(found[0]["columns"]), len(found[1]["columns"])
    longest = int(max(text.words.lengths[sentences].max() for text in (source, target)))
    ways = (
        _Direction(source, target, pairs, alike, stem_pairs, longest, transposed=False),
        _Direction(target, source, pairs, alike, found[0]["columns"], longest, transposed=True),
    )
    block = _empty(trained, given, made, base)
    with ThreadPoolExecutor(2) as pool:
        for number, stage in enumerate(track(STAGES, "aligning words"), 1):
            _sweep_both(pool, ways, stage, block, slots)
            if stage == SEQUENCE and number < len(STAGES):
                _agree(ways, block, slots)
        yield block
        del block, slots
        for part in _blocks(others, cells):
            given, made = source.take(part), target.take(part)
            slots = _match(given.stems, made.stems, found[0]), _match(given.words, made.words, found[1])
            block = _empty(part, given, made, cell_starts(given.words.starts, made.words.starts))
            _sweep_both(pool, ways, FROZEN, block, slots)
            yield block


def _find(given: NumberedText, made: NumberedText) -> dict[str, Any]:
    sizes = len(given.words), len(made.words)
    found = find_cells(given.starts, given.ids, made.starts, made.ids, *sizes)
    return dict(zip(("base", "slots", "row", "columns"), found, strict=True))


def _match(given: NumberedText, made: NumberedText, found: dict[str, Any]) -> Cells:
    known = found["row"], found["columns"]
    slots: Cells = match_cells(given.starts, given.ids, made.starts, made.ids, *known, len(made.words))
    return slots


def _sweep_both(
    pool: ThreadPoolExecutor,
    ways: tuple[_Direction, _Direction],
    stage: int,
    block: Posteriors,
    slots: tuple[Cells, Cells],
) -> None:
    sides = block.source, block.target
    tasks = [
        pool.submit(ways[0].sweep, stage, *sides, block.base, slots, block.forward, block.forward_null),
        pool.submit(ways[1].sweep, stage, *sides[::-1], block.base, slots, block.backward, block.backward_null),
    ]
    for task in tasks:
        task.result()


def _agree(ways: tuple[_Direction, _Direction], block: Posteriors, slots: tuple[Cells, Cells]) -> None:
    forward = ways[0].levels(block.source, block.target, slots)
    backward = ways[1].levels(block.target, block.source, slots)
    starts = block.source.words.starts, block.target.words.starts
    agree(*starts, block.base, block.forward, block.backward, forward, backward)


def _empty(
    sentences: NDArray[np.int64], source: LevelledText, target: LevelledText, base: NDArray[np.int64]
) -> Posteriors:
    sizes = (int(base[-1]), int(base[-1]), len(target.words.ids), len(source.words.ids))
    return Posteriors(sentences, source, target, base, *(np.zeros(size, np.float32) for size in sizes))


def _blocks(sentences: NDArray[np.int64], cells: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    ends = np.cumsum(cells[sentences])
    bounds = np.searchsorted(ends, np.arange(_BLOCK_CELLS, int(ends[-1]) if len(ends) else 0, _BLOCK_CELLS))
    return (part for part in np.split(sentences, bounds) if len(part))


def _same_words(source: NumberedText, target: NumberedText) -> NDArray[np.int64]:
    """Return for each source word the number of the target word of the same letters, -1 where there is none."""
    index = {word: number for number, word in enumerate(target.words)}
    return np.array([index.get(word, -1) for word in source.words], dtype=np.int64)
