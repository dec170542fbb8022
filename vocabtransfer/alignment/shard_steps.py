"""The map and reduce functions of alignment in shards: each reads files, writes one file, and depends on nothing else.

`number_shard` turns text into numbers, `survey_shard` finds which stems with a larger prior ever meet, `sweep_shard` does
one round of inference on a shard, `reduce_part` adds up what all shards found about a range of source words.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_kernels import find_alike, find_cells
from vocabtransfer.alignment.aligner_model import (
    Counts,
    Direction,
    LevelledText,
    Posteriors,
    Slots,
    agree,
    empty_posteriors,
    sweep_both,
)
from vocabtransfer.alignment.aligner_text import NumberedText, Sentence, number_sentences
from vocabtransfer.alignment.options import MAX_WORDS, SEQUENCE, AlignerOptions
from vocabtransfer.alignment.shard_files import Arrays, is_written, pack_words, read_arrays, write_arrays
from vocabtransfer.alignment.shard_kernels import add_up_cells, look_up, merge_rows
from vocabtransfer.alignment.symmetrise import symmetrise_block

SIDES = ("source", "target")
LEVELS = ("stems", "words")


class ShardFacts(NamedTuple):
    """A shard on disk: its file name, its sentence pairs, their cells, and the longest sentence among those used."""

    name: str
    pairs: int
    cells: int
    longest: int


@dataclass(frozen=True)
class Plan:
    """All that a step needs to know: where files lie, and the sizes of the whole corpus.

    ``sizes`` are (source words, target words) at each level; ``bounds`` cut the source words of each level into the parts
    that are added up separately.
    """

    text: Path
    words: Path
    run: Path
    shards: tuple[str, ...]
    options: AlignerOptions
    longest: int
    sizes: tuple[tuple[int, int], tuple[int, int]]
    bounds: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def rounds(self) -> int:
        """How many rounds there are; the last leaves links."""
        return len(self.options.stages)

    @property
    def prior(self) -> Path:
        """What holds for all rounds."""
        return self.run / "prior.npz"

    def shard(self, number: int, kind: str) -> Path:
        """Return the file of a shard in ``round-R``, or in ``words``."""
        return (self.words if kind == "words" else self.run / kind) / f"{number:06d}.npz"

    def model(self, after: int, part: int) -> Path:
        """Return the file with the counts of one part after a round."""
        return self.run / f"round-{after}" / f"model-{part:04d}.npz"

    def state(self, after: int) -> Path:
        """Return the file with everything else that a round leaves to the next."""
        return self.run / f"round-{after}" / "state.npz"


def number_shard(folder: Path, name: str, pairs: list[tuple[Sentence, Sentence]], most_cells: int) -> list[ShardFacts]:
    """Write sentence pairs as numbers, in one file, or in several where they have more than ``most_cells`` cells."""
    sides = number_sentences(pairs)
    shortest, longest = (choose(*(side.lengths for side in sides)) for choose in (np.minimum, np.maximum))
    cells = np.where((shortest > 0) & (longest <= MAX_WORDS), sides[0].lengths * sides[1].lengths, 0)
    group = np.maximum(np.cumsum(cells) - 1, 0) // most_cells
    cuts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(cells)]
    facts = []
    for number, (start, stop) in enumerate(pairwise(cuts)):
        part = f"{name}.{number}"
        inside = np.arange(start, stop)
        arrays: dict[str, NDArray[np.generic]] = {}
        for side, text in zip(SIDES, sides, strict=True):
            taken = text.take(inside)
            used, ids = np.unique(taken.ids, return_inverse=True)
            words = pack_words(text.words[word] for word in used.tolist())
            arrays |= {f"{side}_{key}": array for key, array in words.items()}
            arrays |= {f"{side}_starts": taken.starts, f"{side}_ids": ids.astype(np.int32)}
            arrays[f"{side}_counts"] = np.bincount(ids, minlength=len(used))
        write_arrays(folder / f"{part}.npz", arrays)
        usable = cells[start:stop] > 0
        facts.append(ShardFacts(part, stop - start, int(cells[start:stop].sum()), int(max(longest[inside] * usable))))
    write_arrays(folder / f"{name}.npz", {"facts": np.array([fact[1:] for fact in facts])})
    return facts


def numbered_shards(folder: Path, name: str) -> list[ShardFacts] | None:
    """Return what `number_shard` returned where its files are all there."""
    if not is_written(folder / f"{name}.npz"):
        return None
    with read_arrays(folder / f"{name}.npz") as arrays:
        facts = [ShardFacts(f"{name}.{number}", *row) for number, row in enumerate(arrays["facts"].tolist())]
    return facts if all(is_written(folder / f"{fact.name}.npz") for fact in facts) else None


def survey_shard(plan: Plan, number: int) -> NDArray[np.int64]:
    """Return which pairs of stems with a larger prior share a sentence, as source stem * target stems + target stem."""
    _, given, made = _open(plan, number)
    found = _slots(given.stems, made.stems, plan.sizes[0])
    with read_arrays(plan.prior) as prior:
        alike = find_alike(found.row, found.columns, prior["alike_row"], prior["alike_columns"], plan.sizes[0][1])
    rows = np.repeat(np.arange(plan.sizes[0][0], dtype=np.int64), np.diff(found.row))
    keys: NDArray[np.int64] = np.sort(rows[alike] * plan.sizes[0][1] + found.columns[alike])
    return keys


def sweep_shard(plan: Plan, number: int, round_number: int) -> None:
    """Explain a shard's sentences by what all shards found in the round before, and write what is found now.

    As in `vocabtransfer.alignment.aligner_model`, a sentence's own links of the round before are taken out of the counts
    first, and the sentences of the shard see each other's new ones. The last round leaves links, the others counts.
    """
    path = plan.shard(number, f"round-{round_number}")
    if is_written(path):
        return
    stage, last = plan.options.stages[round_number - 1], round_number == plan.rounds
    usable, given, made = _open(plan, number)
    found = _slots(given.stems, made.stems, plan.sizes[0]), _slots(given.words, made.words, plan.sizes[1])
    slots = found[0].slots, found[1].slots
    block = empty_posteriors(usable, given, made, found[0].base)
    if round_number > 1:
        _restore(block, plan.shard(number, f"round-{round_number - 1}"))
    ways = _directions(plan, found, round_number - 1)
    with ThreadPoolExecutor(2) as pool:
        expected = sweep_both(pool, ways, stage, block, slots)
    before = plan.shard(number, f"round-{round_number - 1}")
    if last:
        write_arrays(path, _links(plan, number, block))
        before.unlink(missing_ok=True)
        return
    if stage == SEQUENCE:
        agree(block)
    arrays = _kept(block) | {f"jumps_{way}": jumps for way, jumps in enumerate(expected)}
    for level, (name, slot) in enumerate(zip(LEVELS, found, strict=True)):
        arrays |= _contributions(name, slot, block, plan.sizes[level][0], plan.bounds[level])
    for way, (nulls, stems) in enumerate(
        ((block.forward_null, made.stems.ids), (block.backward_null, given.stems.ids))
    ):
        ids = np.flatnonzero(np.bincount(stems))
        arrays |= {f"null_ids_{way}": ids, f"null_sums_{way}": np.bincount(stems, nulls)[ids]}
    write_arrays(path, arrays)
    before.unlink(missing_ok=True)  # nobody else needs it: what it added up to is in the model


def reduce_part(plan: Plan, part: int, round_number: int) -> None:
    """Add up what all shards found in a round about one part of the source words."""
    path = plan.model(round_number, part)
    if is_written(path):
        return
    arrays: dict[str, NDArray[np.generic]] = {}
    for level, name in enumerate(LEVELS):
        first, last = plan.bounds[level][part : part + 2]
        keys = [f"{name}_{part}_{kind}" for kind in ("sources", "columns", "counts")]
        found = []
        for number in range(len(plan.shards)):
            with read_arrays(plan.shard(number, f"round-{round_number}")) as shard:
                found.append([shard[key] for key in keys])
        sources, columns, counts = (np.concatenate(kind) for kind in zip(*found, strict=True))
        bounds = np.concatenate([[0], np.cumsum([len(shard[0]) for shard in found])]).astype(np.int64)
        del found
        row, columns, counts = merge_rows(bounds, sources, columns, counts, first, last, plan.sizes[level][1])
        owners = np.repeat(np.arange(last - first), np.diff(row))
        arrays |= {f"{name}_row": row, f"{name}_columns": columns, f"{name}_counts": counts}
        arrays[f"{name}_totals_0"] = np.bincount(owners, counts[:, 0], minlength=last - first)
        arrays[f"{name}_totals_1"] = np.bincount(columns, counts[:, 1], minlength=plan.sizes[level][1])
    write_arrays(path, arrays)


def read_text_shard(plan: Plan, number: int) -> Arrays:
    """Return all arrays of a shard's text."""
    with read_arrays(plan.text / f"{plan.shards[number]}.npz") as text:
        return {key: text[key] for key in text}


def _open(plan: Plan, number: int) -> tuple[NDArray[np.int64], LevelledText, LevelledText]:
    """Return the sentence pairs of a shard that can be aligned, and both sides in the numbers of the whole corpus."""
    text = read_text_shard(plan, number)
    starts = [text[f"{side}_starts"] for side in SIDES]
    lengths = [np.diff(start) for start in starts]
    usable = np.flatnonzero((np.minimum(*lengths) > 0) & (np.maximum(*lengths) <= MAX_WORDS))
    levelled = []
    with read_arrays(plan.shard(number, "words")) as names:
        for side, start in zip(SIDES, starts, strict=True):
            ids = text[f"{side}_ids"]
            words, stems = (NumberedText((), start, names[f"{side}_{kind}"][ids]) for kind in ("words", "stems"))
            levelled.append(LevelledText(words, stems).take(usable))
    return usable, levelled[0], levelled[1]


def _slots(given: NumberedText, made: NumberedText, sizes: tuple[int, int]) -> Slots:
    return Slots(*find_cells(given.starts, given.ids, made.starts, made.ids, *sizes))


def _directions(plan: Plan, found: tuple[Slots, Slots], after: int) -> tuple[Direction, Direction]:
    """Return both directions with what is known of the shard's words after a round (after none: nothing)."""
    counts = [np.zeros((len(level.columns), 2)) for level in found]
    for part in range(len(plan.bounds[0]) - 1 if after else 0):
        with read_arrays(plan.model(after, part)) as model:
            for level, name in enumerate(LEVELS):
                row, columns, known = (model[f"{name}_{kind}"] for kind in ("row", "columns", "counts"))
                first, target_size = plan.bounds[level][part], plan.sizes[level][1]
                wanted = found[level].row, found[level].columns
                look_up(*wanted, first, row, columns, known, target_size, counts[level])
    with read_arrays(plan.prior) as prior, read_arrays(plan.state(after)) as state:
        alike = find_alike(found[0].row, found[0].columns, prior["alike_row"], prior["alike_columns"], plan.sizes[0][1])

        def direction(way: int) -> Direction:
            levels = [
                Counts(np.ascontiguousarray(counts[level][:, way]), state[f"{name}_totals_{way}"])
                for level, name in enumerate(LEVELS)
            ]
            return Direction(
                transposed=way == 1,
                alike=alike,
                strength=state[f"strength_{way}"],
                word_share=prior[f"shares_{way}"],
                stems=levels[0],
                words=levels[1],
                null_counts=state[f"nulls_{way}"],
                jumps=state[f"jumps_{way}"],
            )

        return direction(0), direction(1)


def _kept(block: Posteriors) -> dict[str, NDArray[np.generic]]:
    cells = np.flatnonzero((block.forward > 0) | (block.backward > 0))
    return {
        "cells": cells.astype(np.uint32),
        "forward": block.forward[cells],
        "backward": block.backward[cells],
        "forward_null": block.forward_null,
        "backward_null": block.backward_null,
    }


def _restore(block: Posteriors, path: Path) -> None:
    with read_arrays(path) as kept:
        cells = kept["cells"]
        for name in ("forward", "backward"):
            getattr(block, name)[cells] = kept[name]
        for name in ("forward_null", "backward_null"):
            getattr(block, name)[:] = kept[name]


def _contributions(
    name: str, found: Slots, block: Posteriors, sources: int, bounds: tuple[int, ...]
) -> dict[str, NDArray[np.generic]]:
    """Return a shard's counts of word pairs at one level, cut into parts at the bounds of source words."""
    counts = add_up_cells(found.slots, block.forward, block.backward, len(found.columns))
    linked = np.flatnonzero(counts.any(axis=1))
    owners = np.repeat(np.arange(sources, dtype=np.int32), np.diff(found.row))[linked]
    columns, counts = found.columns[linked], counts[linked]
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, (start, stop) in enumerate(pairwise(np.searchsorted(owners, bounds).tolist())):
        span = slice(start, stop)
        arrays |= {
            f"{name}_{part}_sources": owners[span],
            f"{name}_{part}_columns": columns[span],
            f"{name}_{part}_counts": counts[span],
        }
    return arrays


def _links(plan: Plan, number: int, block: Posteriors) -> dict[str, NDArray[np.generic]]:
    """Return the links of a shard, and their sums for each pair of words as they are written."""
    text = read_text_shard(plan, number)
    pair, i, j, probability = symmetrise_block(block, plan.options.symmetrise, plan.options.threshold)
    starts = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=len(text["source_starts"]) - 1))])
    with read_arrays(plan.shard(number, "words")) as names:
        source, target = (
            names[f"{side}_surface"][text[f"{side}_ids"][text[f"{side}_starts"][pair] + place]].astype(np.int64)
            for side, place in zip(SIDES, (i, j), strict=True)
        )
    order = np.lexsort((target, source))
    # The first link of each pair of words; sorting is stable, so the sums do not depend on anything but the links.
    first = np.flatnonzero(
        np.concatenate([[True] * bool(len(order)), (np.diff(source[order]) != 0) | (np.diff(target[order]) != 0)])
    )
    sums = np.add.reduceat(probability[order].astype(np.float64), first) if len(first) else np.zeros(0)
    return {
        "starts": starts.astype(np.int64),
        "source_positions": i,
        "target_positions": j,
        "probabilities": probability,
        "pair_sources": source[order][first].astype(np.int32),
        "pair_targets": target[order][first].astype(np.int32),
        "pair_counts": sums,
    }
