"""Word tables of corpora larger than memory: map and reduce over shards, one model for all of them.

A shard is some tens of thousands of sentence pairs. Every round of inference explains each shard by the counts of *all*
shards in the round before, less what the sentence itself added; inside a shard, sentences also see each other's new links
at once. Then the shards' counts are added up, in the order of the shards. Doing so between rounds instead of after every
sentence is what makes shards independent of each other (Newman, Asuncion, Smyth and Welling 2009); with one shard it is
the aligner of `vocabtransfer.alignment.aligner_model` itself.

Memory: the words of the corpus in the process that leads, and some 0.5 GB for each process that works, however long the
corpus. Disk: some 0.3 GB for every hundred thousand sentence pairs, until the table is there.
"""

import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_model import first_jumps, learn_jumps, prior_strength, word_shares
from vocabtransfer.alignment.aligner_text import Sentence
from vocabtransfer.alignment.engines import Engine, open_engine
from vocabtransfer.alignment.options import MAX_WORDS, SEQUENCE, AlignerOptions
from vocabtransfer.alignment.priors import Romanizer, find_prior
from vocabtransfer.alignment.shard_files import (
    fingerprint,
    is_written,
    open_work,
    read_arrays,
    text_fingerprint,
    unpack_words,
    write_arrays,
)
from vocabtransfer.alignment.shard_results import add_up, link_lines, word_lines
from vocabtransfer.alignment.shard_steps import (
    LEVELS,
    SIDES,
    Plan,
    ShardFacts,
    number_shard,
    numbered_shards,
    reduce_part,
    survey_shard,
    sweep_shard,
)
from vocabtransfer.alignment.shard_vocabulary import GrowingVocabulary
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.text_files import write_lines
from vocabtransfer.progress import track
from vocabtransfer.version import __version__

SHARD_PAIRS = 20_000
SHARD_CELLS = 5_000_000
# What a process needs for a shard of that size, numba and numpy included.
_SHARD_BYTES = 500_000_000
_CELLS_PER_PART = 80_000_000

Vocabularies = tuple[GrowingVocabulary, GrowingVocabulary]


@dataclass(frozen=True)
class Sharding:
    """How the work is spread: see `vocabtransfer.alignment.align_corpus`."""

    shard_pairs: int | None = None
    work: Path | None = None
    engine: str = "local"
    processes: int = 1


def default_processes() -> int:
    """Return how many processes this machine has cores and free memory for."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return int(max(1, min(cores, psutil.virtual_memory().available // (2 * _SHARD_BYTES))))


def default_shard_pairs(processes: int) -> int:
    """Return how many pairs a shard has: 20,000, fewer only where free memory is too short for that.

    The number shows in the table's metadata, since another one gives slightly other counts.
    """
    pairs, free = SHARD_PAIRS, psutil.virtual_memory().available / processes
    while pairs > SHARD_PAIRS // 16 and free < _SHARD_BYTES * pairs / SHARD_PAIRS:
        pairs //= 2
    return pairs


def count_in_shards(
    pairs: Iterable[tuple[Sentence, Sentence]],
    options: AlignerOptions,
    sharding: Sharding,
    *,
    romanizer: Romanizer | None,
    dictionary: Iterable[tuple[str, str]],
    metadata: Mapping[str, Any],
    links: Path | None,
    words: Path | None,
) -> WordTable:
    """Do what `vocabtransfer.alignment.align_corpus` says for large corpora."""
    shard_pairs = sharding.shard_pairs or default_shard_pairs(sharding.processes)
    with open_work(sharding.work) as folder, open_engine(sharding.engine, sharding.processes) as engine:
        shards = _number(folder / "text", pairs, shard_pairs, engine)
        if not any(shard.cells for shard in shards):
            count = sum(shard.pairs for shard in shards)
            raise VocabTransferError(f"none of {count} sentence pairs has words on both sides, up to {MAX_WORDS}.")
        options = options.settled(sum(shard.pairs for shard in shards), sum(shard.cells for shard in shards))
        names = [shard.name for shard in shards]
        vocabularies = GrowingVocabulary(options.stem_length), GrowingVocabulary(options.stem_length)
        places = folder / f"words-{fingerprint(names, options.stem_length)}"
        _name_words(folder / "text", places, names, vocabularies)
        plan = _plan(folder, places, shards, vocabularies, options, romanizer, dictionary)
        _survey(plan, engine)
        _infer(plan, engine)
        facts = {
            "pairs": sum(shard.pairs for shard in shards),
            "aligner": f"vocabtransfer {__version__}, {options.name}, shards of {shard_pairs} pairs",
            **metadata,
        }
        # The folder goes when the table is complete: the files the user asked for come before.
        if links is not None:
            write_lines(links, link_lines(plan))
        if words is not None:
            write_lines(words, word_lines(plan))
        return add_up(plan, *vocabularies, facts)


def _number(
    folder: Path, pairs: Iterable[tuple[Sentence, Sentence]], shard_pairs: int, engine: Engine
) -> list[ShardFacts]:
    """Write the corpus as numbered shards; those that an earlier run wrote stay."""
    known: dict[int, list[ShardFacts]] = {}
    asked: list[int] = []

    def missing() -> Iterator[tuple[Any, ...]]:
        for number, part in enumerate(_batches(track(pairs, "reading sentence pairs"), shard_pairs)):
            name = text_fingerprint(part)
            found = numbered_shards(folder, name)
            if found is None:
                asked.append(number)
                yield folder, name, part, SHARD_CELLS
            else:
                known[number] = found

    for place, facts in enumerate(engine.map(number_shard, missing())):
        known[asked[place]] = facts
    return [shard for number in sorted(known) for shard in known[number]]


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, size)):
        yield batch


def _name_words(text: Path, places: Path, names: list[str], vocabularies: Vocabularies) -> None:
    """Give the words of all shards common numbers, and write for each shard which its words have."""
    for number, name in enumerate(track(names, "gathering words")):
        arrays = {}
        with read_arrays(text / f"{name}.npz") as shard:
            for side, vocabulary in zip(SIDES, vocabularies, strict=True):
                words = unpack_words(shard[f"{side}_letters"], shard[f"{side}_sizes"])
                rows = vocabulary.number(words, shard[f"{side}_counts"])
                for column, kind in enumerate(("surface", "words", "stems")):
                    arrays[f"{side}_{kind}"] = rows[:, column].copy()
        path = places / f"{number:06d}.npz"
        if not is_written(path):
            write_arrays(path, arrays)


def _plan(
    folder: Path,
    places: Path,
    shards: list[ShardFacts],
    vocabularies: Vocabularies,
    options: AlignerOptions,
    romanizer: Romanizer | None,
    dictionary: Iterable[tuple[str, str]],
) -> Plan:
    """Return the plan, after writing the larger priors and what else holds for all rounds."""
    sides = [vocabulary.side() for vocabulary in vocabularies]
    prior = find_prior(sides[0], sides[1], romanizer=romanizer, dictionary=dictionary)
    key = fingerprint(__version__, places.name, vars(options), prior.row.tobytes().hex(), prior.columns.tobytes().hex())
    parts = max(1, -(-sum(shard.cells for shard in shards) // _CELLS_PER_PART))
    plan = Plan(
        text=folder / "text",
        words=places,
        run=folder / f"run-{key}",
        shards=tuple(shard.name for shard in shards),
        options=options,
        longest=max(shard.longest for shard in shards),
        sizes=(
            (len(vocabularies[0].stems), len(vocabularies[1].stems)),
            (len(vocabularies[0].words), len(vocabularies[1].words)),
        ),
        bounds=(_cut(vocabularies[0].stem_totals(), parts), _cut(vocabularies[0].word_totals(), parts)),
    )
    if not is_written(plan.prior):
        arrays: dict[str, NDArray[Any]] = {"alike_row": prior.row, "alike_columns": prior.columns}
        for way, (side, vocabulary) in enumerate(zip(reversed(sides), reversed(vocabularies), strict=True)):
            # The words that are made are those of the target one way, of the source the other.
            arrays[f"shares_{way}"] = word_shares(vocabulary.word_totals(), side.stem_of, len(side.stems))
        write_arrays(plan.prior, arrays)
    return plan


def _cut(weights: NDArray[np.float64], parts: int) -> tuple[int, ...]:
    """Return bounds that cut a list into parts of about the same weight."""
    ends = np.cumsum(weights)
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts) + 1
    return (0, *np.minimum(inner, len(weights)).tolist(), len(weights))


def _survey(plan: Plan, engine: Engine) -> None:
    """Write the state before the first round: no counts, and how strong the priors of each stem are together."""
    if is_written(plan.state(0)):
        return
    tasks = ((plan, number) for number in range(len(plan.shards)))
    alike = np.zeros(0, dtype=np.int64)
    for found in track(engine.map(survey_shard, tasks), "looking for like words", len(plan.shards)):
        alike = np.union1d(alike, found)
    stems = plan.sizes[0]
    arrays: dict[str, NDArray[Any]] = {}
    for way, names in enumerate(np.divmod(alike, stems[1])):
        given, made = (0, 1) if way == 0 else (1, 0)
        arrays[f"strength_{way}"] = prior_strength(names, stems[given], stems[made])
        arrays[f"nulls_{way}"] = np.zeros(stems[made])
        arrays[f"jumps_{way}"] = first_jumps(plan.longest)
        for level, name in enumerate(LEVELS):
            arrays[f"{name}_totals_{way}"] = np.zeros(plan.sizes[level][given])
    write_arrays(plan.state(0), arrays)


def _infer(plan: Plan, engine: Engine) -> None:
    """Do all rounds that are not done yet."""
    shards, parts = range(len(plan.shards)), range(len(plan.bounds[0]) - 1)
    done = next((number for number in range(plan.rounds - 1, 0, -1) if is_written(plan.state(number))), 0)
    for number in range(done + 1, plan.rounds + 1):
        about = f"aligning words, round {number} of {plan.rounds}"
        swept = engine.map(sweep_shard, ((plan, shard, number) for shard in shards))
        for _ in track(swept, about, len(shards)):
            pass
        if number == plan.rounds:
            break
        summed = engine.map(reduce_part, ((plan, part, number) for part in parts))
        for _ in track(summed, "adding up", len(parts)):
            pass
        _gather(plan, number)
        if number > 1:
            shutil.rmtree(plan.state(number - 1).parent, ignore_errors=True)


def _gather(plan: Plan, number: int) -> None:
    """Write the state after a round."""
    with read_arrays(plan.state(number - 1)) as before:
        state = {key: before[key] for key in before}
    expected = [np.zeros_like(state[f"jumps_{way}"]) for way in (0, 1)]
    for way in (0, 1):
        state[f"nulls_{way}"] = np.zeros_like(state[f"nulls_{way}"])
    for shard in range(len(plan.shards)):
        with read_arrays(plan.shard(shard, f"round-{number}")) as found:
            for way in (0, 1):
                state[f"nulls_{way}"][found[f"null_ids_{way}"]] += found[f"null_sums_{way}"]
                expected[way] += found[f"jumps_{way}"]
    if plan.options.stages[number - 1] == SEQUENCE:
        for way in (0, 1):
            state[f"jumps_{way}"] = learn_jumps(expected[way])
    totals: dict[str, list[NDArray[np.float64]]] = {}
    for part in range(len(plan.bounds[0]) - 1):
        with read_arrays(plan.model(number, part)) as model:
            for name in LEVELS:
                for way in (0, 1):
                    totals.setdefault(f"{name}_totals_{way}", []).append(model[f"{name}_totals_{way}"])
    for name in LEVELS:
        state[f"{name}_totals_0"] = np.concatenate(totals[f"{name}_totals_0"])
        state[f"{name}_totals_1"] = np.sum(totals[f"{name}_totals_1"], axis=0)
    write_arrays(plan.state(number), state)
