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

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_kernels import (
    Level,
    Settings,
    cell_starts,
    find_alike,
    find_cells,
    match_cells,
    recount,
    sweep,
)
from vocabtransfer.alignment.aligner_text import NumberedText
from vocabtransfer.alignment.options import FROZEN, SEQUENCE
from vocabtransfer.alignment.priors import Prior
from vocabtransfer.progress import track

# Chosen by alignment error rate on English-French and English-Czech; see benchmarks/alignment.
SETTINGS = Settings(prior=0.001, alike_prior=1.0, backoff=20.0, null_prior=0.001, null_share=0.1, least=1e-4)
JUMP_PRIOR = 0.5

# Jumps further than this share one probability.
_FAR = 64
# Statistics are taken from at most this many cells, evenly spread over the corpus; some 25 bytes each, 1.2 GB in all.
_TRAINED_CELLS = 50_000_000
_BLOCK_CELLS = 10_000_000

Cells = NDArray[np.int32]


class Counts(NamedTuple):
    """Links counted at one level, by pair of words (slots) and by given word; float64."""

    by_slot: NDArray[np.float64]
    by_given: NDArray[np.float64]


class Slots(NamedTuple):
    """What `find_cells` returns."""

    base: NDArray[np.int64]
    slots: Cells
    row: NDArray[np.int64]
    columns: Cells


@dataclass(frozen=True, eq=False)
class LevelledText:
    """One side of a corpus twice: as ``words`` without case, and as ``stems``, their first letters."""

    words: NumberedText
    stems: NumberedText

    def take(self, sentences: NDArray[np.int64]) -> "LevelledText":
        """Return the given sentences, over the same words."""
        return LevelledText(self.words.take(sentences), self.stems.take(sentences))

    @property
    def stem_of(self) -> NDArray[np.int32]:
        """The stem of each word."""
        stem_of = np.zeros(len(self.words.words), dtype=np.int32)
        stem_of[self.words.ids] = self.stems.ids
        return stem_of

    def word_shares(self) -> NDArray[np.float64]:
        """Return which share of its stem's occurrences each word has."""
        words = np.bincount(self.words.ids, minlength=len(self.words.words))
        return word_shares(words, self.stem_of, len(self.stems.words))


def word_shares(words: NDArray[Any], stem_of: NDArray[np.int32], stems: int) -> NDArray[np.float64]:
    """Return which share of its stem's occurrences each word has, from the occurrences of the words."""
    sums = np.bincount(stem_of, words, minlength=stems)
    shares: NDArray[np.float64] = words / np.maximum(sums[stem_of], 1)
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


@dataclass(eq=False)
class Direction:
    """One direction's counts of links, by which sentences are explained.

    ``stems`` and ``words`` are the counts of both levels: (slots) and (given words), float64. ``alike`` (stem slots)
    tells the pairs with a larger prior, ``strength`` (given stems) sums the priors of a stem, ``word_share`` is the share
    of each made word in its stem; ``null_counts`` (made stems) and ``jumps`` (2 x the longest sentence + 1) go with them.
    """

    transposed: bool
    alike: NDArray[np.bool_]
    strength: NDArray[np.float64]
    word_share: NDArray[np.float64]
    stems: Counts
    words: Counts
    null_counts: NDArray[np.float64]
    jumps: NDArray[np.float64]

    def levels(self, given: LevelledText, made: LevelledText, slots: tuple[Cells, Cells]) -> tuple[Level, Level]:
        """Return the counts as the kernels take them, stems and words, together with the sentences to visit."""
        return (
            Level(given.stems.ids, made.stems.ids, slots[0], *self.stems),
            Level(given.words.ids, made.words.ids, slots[1], *self.words),
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
    ) -> NDArray[np.float64]:
        """Sweep over sentences once; return the jumps that were expected, as `learn_jumps` takes them."""
        expected: NDArray[np.float64] = sweep(
            stage, given.words.starts, made.words.starts, base, self.transposed, *self.levels(given, made, slots),
            self.word_share, self.alike, self.strength, self.null_counts, self.jumps, posterior, null_posterior, SETTINGS,
        )  # fmt: skip
        return expected


def prior_strength(alike: NDArray[np.integer[Any]], given: int, made: int) -> NDArray[np.float64]:
    """Return the sum of priors of each given stem; ``alike`` names it once for every made stem it is alike to."""
    return np.asarray(SETTINGS.prior * made + SETTINGS.alike_prior * np.bincount(alike, minlength=given), np.float64)


def first_jumps(longest: int) -> NDArray[np.float64]:
    """Return the jumps to begin with, for sentences of up to ``longest`` words: mostly one word ahead."""
    return np.asarray(np.exp(-np.abs(np.clip(_distances(longest), -_FAR, _FAR) - 1) / 4.0), dtype=np.float64)


def learn_jumps(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the jumps estimated anew from expected ones; far ones share one probability."""
    near = np.clip(_distances(len(expected) // 2), -_FAR, _FAR) + _FAR
    pooled = np.bincount(near, expected) + JUMP_PRIOR
    jumps: NDArray[np.float64] = (pooled / pooled.sum())[near]
    return jumps


def infer_links(
    source: LevelledText,
    target: LevelledText,
    sentences: NDArray[np.int64],
    prior: Prior,
    stages: Sequence[int],
) -> Iterator[Posteriors]:
    """Yield the link probabilities of the given sentence pairs, all of which have words on both sides, after all stages.

    A corpus past 50 million cells gives its statistics by an evenly spread part of it, which comes first; the rest is
    explained by what was found there. Memory beyond the text itself stays near 1.2 GB.
    """
    cells = source.words.lengths * target.words.lengths
    every = max(1, -(-int(cells[sentences].sum()) // _TRAINED_CELLS))
    trained, others = sentences[::every], np.delete(sentences, np.s_[::every])
    given, made = source.take(trained), target.take(trained)
    longest = int(max(text.words.lengths[sentences].max() for text in (source, target)))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(find_slots, (given.stems, given.words), (made.stems, made.words)))
        slots, base = (found[0].slots, found[1].slots), found[0].base
        ways = _new_directions(source, target, found, prior, longest)
        block = empty_posteriors(trained, given, made, base)
        for number, stage in enumerate(track(stages, "aligning words"), 1):
            expected = sweep_both(pool, ways, stage, block, slots)
            if stage == SEQUENCE:
                for way, jumps in zip(ways, expected, strict=True):
                    way.jumps = learn_jumps(jumps)
                if number < len(stages):
                    agree(block)
                    _recount(pool, ways, block, slots)
        yield block
        found = [_without_slots(level) for level in found]
        del block, slots
        for part in _blocks(others, cells):
            given, made = source.take(part), target.take(part)
            slots = _match(given.stems, made.stems, found[0]), _match(given.words, made.words, found[1])
            block = empty_posteriors(part, given, made, cell_starts(given.words.starts, made.words.starts))
            sweep_both(pool, ways, FROZEN, block, slots)
            yield block


def _distances(longest: int) -> NDArray[np.int64]:
    return np.arange(-longest, longest + 1)


def _new_directions(
    source: LevelledText, target: LevelledText, found: list[Slots], prior: Prior, longest: int
) -> tuple[Direction, Direction]:
    """Return both directions without any counts."""
    stems = found[0]
    rows = np.repeat(np.arange(len(source.stems.words), dtype=np.int32), np.diff(stems.row))
    alike: NDArray[np.bool_] = find_alike(stems.row, stems.columns, *prior, len(target.stems.words))
    sizes = len(stems.columns), len(found[1].columns)

    def direction(given: LevelledText, made: LevelledText, names: Cells, transposed: bool) -> Direction:
        given_sizes = len(given.stems.words), len(given.words.words)
        strength = prior_strength(names[alike], given_sizes[0], len(made.stems.words))
        counts = [Counts(np.zeros(size), np.zeros(total)) for size, total in zip(sizes, given_sizes, strict=True)]
        nulls = np.zeros(len(made.stems.words))
        shares = made.word_shares()
        return Direction(transposed, alike, strength, shares, counts[0], counts[1], nulls, first_jumps(longest))

    return (
        direction(source, target, rows, transposed=False),
        direction(target, source, stems.columns, transposed=True),
    )


def find_slots(given: NumberedText, made: NumberedText) -> Slots:
    """Return the slots of all sentences of a text, at one level."""
    sizes = len(given.words), len(made.words)
    return Slots(*find_cells(given.starts, given.ids, made.starts, made.ids, *sizes))


def _without_slots(found: Slots) -> Slots:
    return found._replace(slots=np.zeros(0, np.int32))


def _match(given: NumberedText, made: NumberedText, found: Slots) -> Cells:
    known = found.row, found.columns
    slots: Cells = match_cells(given.starts, given.ids, made.starts, made.ids, *known, len(made.words))
    return slots


def sweep_both(
    pool: ThreadPoolExecutor,
    ways: tuple[Direction, Direction],
    stage: int,
    block: Posteriors,
    slots: tuple[Cells, Cells],
) -> list[NDArray[np.float64]]:
    """Sweep over a block in both directions at once; return the jumps expected in each."""
    sides = block.source, block.target
    tasks = [
        pool.submit(ways[0].sweep, stage, *sides, block.base, slots, block.forward, block.forward_null),
        pool.submit(ways[1].sweep, stage, *sides[::-1], block.base, slots, block.backward, block.backward_null),
    ]
    return [task.result() for task in tasks]


def agree(block: Posteriors) -> None:
    """Replace the links of both directions by their product (Liang, Taskar and Klein 2006), small ones by nothing."""
    block.forward[:] *= block.backward
    block.forward[block.forward < SETTINGS.least] = 0
    block.backward[:] = block.forward


def _recount(
    pool: ThreadPoolExecutor, ways: tuple[Direction, Direction], block: Posteriors, slots: tuple[Cells, Cells]
) -> None:
    forward = ways[0].levels(block.source, block.target, slots)
    backward = ways[1].levels(block.target, block.source, slots)
    cells = block.source.words.starts, block.target.words.starts, block.base, block.forward
    for task in [pool.submit(recount, *cells, *both) for both in zip(forward, backward, strict=True)]:
        task.result()


def empty_posteriors(
    sentences: NDArray[np.int64], source: LevelledText, target: LevelledText, base: NDArray[np.int64]
) -> Posteriors:
    """Return a block without any links."""
    sizes = (int(base[-1]), int(base[-1]), len(target.words.ids), len(source.words.ids))
    return Posteriors(sentences, source, target, base, *(np.zeros(size, np.float32) for size in sizes))


def _blocks(sentences: NDArray[np.int64], cells: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    ends = np.cumsum(cells[sentences])
    bounds = np.searchsorted(ends, np.arange(_BLOCK_CELLS, int(ends[-1]) if len(ends) else 0, _BLOCK_CELLS))
    return (part for part in np.split(sentences, bounds) if len(part))
