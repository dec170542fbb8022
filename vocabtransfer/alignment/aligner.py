"""`align`: which words of a sentence pair translate each other, for a whole parallel corpus.

>>> pairs = [("a house", "uy"), ("a book", "kitap"), ("the house", "uy"), ("house", "uy")] * 5
>>> align(pairs).links(0)
[(1, 0)]
"""

import inspect
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_text import NumberedText, Sentence, number_pairs
from vocabtransfer.alignment.corpora import Paths, as_pairs
from vocabtransfer.alignment.engines import check_engine
from vocabtransfer.alignment.options import (
    ACCURATE_CELLS,
    ACCURATE_PAIRS,
    MAX_WORDS,
    STEM_LENGTH,
    THRESHOLD,
    AlignerOptions,
)
from vocabtransfer.alignment.priors import Romanizer, Side, find_prior
from vocabtransfer.alignment.registry import Aligner, find_aligner
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.word_alignment import WordAlignment
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import write_lines
from vocabtransfer.public import public
from vocabtransfer.version import __version__

__all__ = ["MAX_WORDS", "STEM_LENGTH", "THRESHOLD", "WordAlignment", "align", "align_corpus"]

# What is aligned in one piece: so many pairs are held as text, and so many pairs of words are all seen in training.
PAIRS_IN_MEMORY = ACCURATE_PAIRS
CELLS_IN_MEMORY = ACCURATE_CELLS


def align(
    pairs: Paths | Iterable[tuple[Sentence, Sentence]],
    *,
    aligner: str = "vocabtransfer",
    model: str | Path | None = None,
    symmetrise: str | None = None,
    threshold: float = THRESHOLD,
    stem_length: int = STEM_LENGTH,
    effort: str | None = None,
    romanizer: Romanizer | None = None,
    dictionary: Iterable[tuple[str, str]] = (),
) -> WordAlignment:
    """Align the words of sentence pairs; the same pairs give the same links on any number of threads.

    Pairs stand in memory or in files: a path or several are opened with `read_parallel`.

    A sentence is text, split by `split_words`, or a sequence of words. ``symmetrise`` is ``"posterior"`` (the default),
    ``"intersection"``, ``"union"`` or ``"grow-diag-final-and"``; ``threshold`` is the least product of both directions'
    probabilities under ``"posterior"``. Rare words lean on the statistics of all words with the same first
    ``stem_length`` characters. Pairs with an empty side, or more than 256 words on one, stay without links.

    ``effort`` is ``"accurate"`` (five sweeps over the corpus) or ``"fast"`` (three, in two thirds of the time); left out, a
    corpus of more than 250,000 pairs or 50 million pairs of words is aligned fast.

    Words written alike are expected to translate each other; so are, with a ``romanizer`` (a function from a word to
    Latin letters), words that share their first consonants, and the entries of a ``dictionary``.

    ``aligner`` may also be ``"eflomal"`` or ``"thot"`` where those are installed, or ``"neural"`` with a ``model`` (folder,
    alias or hub id) that knows both languages: they take none of the options but ``symmetrise``, which is
    ``"grow-diag-final-and"`` there unless it is given (``"intersection"`` for a model), and cannot be ``"posterior"``.

    Raises `UsageError` for options out of range and `VocabTransferError` when no pair can be aligned.
    """
    chosen = _check(aligner, model, symmetrise, threshold, stem_length, effort, romanizer, dictionary)
    return _align_numbered(*number_pairs(as_pairs(pairs)), chosen)


@public
def align_corpus(
    pairs: Paths | Iterable[tuple[Sentence, Sentence]],
    *,
    metadata: Mapping[str, Any] | None = None,
    links: str | Path | None = None,
    words: str | Path | None = None,
    shard_pairs: int | None = None,
    work: str | Path | None = None,
    engine: str = "local",
    processes: int = 1,
    **options: Any,
) -> WordTable:
    """Align sentence pairs and count the linked words; ``options`` are those of `align`.

    ``metadata`` (language codes, provenance, licence) is kept in the table, as `WordAlignment.table` says. The links go
    to the file ``links`` as well, in Pharaoh form, a line for each pair; ``words`` gets the pairs as the links count
    their words, split at spaces.

    A corpus of more than 250,000 pairs, or of pairs so long that they make more than 50 million pairs of words, is
    worked on in shards, so that it may be larger than memory; any corpus is that has more than ``shard_pairs`` pairs,
    where that is given. See `vocabtransfer.alignment.shards` for what that changes. ``engine`` is ``"local"`` or
    ``"ray"``; neither it nor the number of ``processes`` changes the table. More than one local process needs a script
    guarded by ``if __name__ == "__main__"``. What is done is kept in the folder ``work`` until the table is there: the
    same call continues after an interruption. Without a folder a temporary one is used.

    Raises `UsageError` and `VocabTransferError` as `align` does, and for a work folder that cannot be written.
    """
    unknown = sorted(options.keys() - inspect.signature(_check).parameters.keys())
    if unknown:
        raise UsageError(f"align_corpus has no option {unknown[0]!r}.")
    for name, place in (("links", links), ("words", words)):
        if place is not None and not Path(place).name:
            raise UsageError(f"{name} is a file to write, not {str(place)!r}.")
    chosen = _check(**{"aligner": "vocabtransfer"} | options)
    check_engine(engine)
    if chosen.other is not None and (shard_pairs is not None or engine != "local"):
        raise UsageError(f"{chosen.other.name} aligns a corpus in one piece: leave out shards and engines.")
    if (shard_pairs is not None and shard_pairs < 1) or processes < 1:
        raise UsageError("a shard needs at least one pair, and the work at least one process.")
    waiting = iter(as_pairs(pairs))
    most = shard_pairs or PAIRS_IN_MEMORY
    first = list(islice(waiting, most + 1)) if chosen.other is None else list(waiting)
    if len(first) <= most or chosen.other is not None:
        sides = number_pairs(first)
        cells = int(sides[0].lengths @ sides[1].lengths)
        if cells <= CELLS_IN_MEMORY or shard_pairs or chosen.other is not None:
            return _finish(_align_numbered(*sides, chosen), metadata, links, words)
    from vocabtransfer.alignment.shards import Sharding, count_in_shards

    sharding = Sharding(shard_pairs, None if work is None else Path(work), engine, processes)
    return count_in_shards(
        chain(first, waiting),
        chosen.options,
        sharding,
        romanizer=chosen.romanizer,
        dictionary=chosen.dictionary,
        metadata=metadata or {},
        links=None if links is None else Path(links),
        words=None if words is None else Path(words),
    )


class _Chosen(NamedTuple):
    other: Aligner | None  # None for our own
    model: str | Path | None
    options: AlignerOptions
    romanizer: Romanizer | None
    dictionary: tuple[tuple[str, str], ...]


def _check(
    aligner: str,
    model: str | Path | None = None,
    symmetrise: str | None = None,
    threshold: float = THRESHOLD,
    stem_length: int = STEM_LENGTH,
    effort: str | None = None,
    romanizer: Romanizer | None = None,
    dictionary: Iterable[tuple[str, str]] = (),
) -> _Chosen:
    other = find_aligner(aligner)
    if other is not None and other.needs_model and model is None:
        raise UsageError(f"the aligner {aligner} needs a model that knows both languages: give it a model.")
    if model is not None and (other is None or not other.needs_model):
        raise UsageError(
            f"the aligner {aligner} reads with no model: leave the model out, or choose the aligner neural."
        )
    default = "posterior" if other is None else other.symmetrise
    options = AlignerOptions(symmetrise or default, threshold, stem_length, effort)
    entries = tuple(dictionary)
    if other is not None:
        if options.symmetrise == "posterior":
            raise UsageError(f"{aligner} gives links without probabilities: choose another symmetrisation.")
        if (threshold, stem_length, effort) != (THRESHOLD, STEM_LENGTH, None) or romanizer is not None or entries:
            raise UsageError(f"{aligner} takes no threshold, stem length, effort, romanizer or dictionary.")
    return _Chosen(other, model, options, romanizer, entries)


def _align_numbered(source: NumberedText, target: NumberedText, chosen: _Chosen) -> WordAlignment:
    usable = _usable_pairs(source, target)
    if chosen.other is not None:
        from vocabtransfer.alignment.other_aligners import align_with

        return align_with(chosen.other, source, target, usable, chosen.options.symmetrise, chosen.model)
    # numba takes half a second to import, and only aligning needs it.
    from vocabtransfer.alignment.aligner_model import LevelledText, infer_links
    from vocabtransfer.alignment.symmetrise import symmetrise_block

    options = chosen.options.settled(len(source), int(source.lengths[usable] @ target.lengths[usable]))
    levels = [LevelledText(text.stemmed(), text.stemmed(options.stem_length)) for text in (source, target)]
    sides = [Side(level.words.words, level.stem_of, level.stems.words) for level in levels]
    prior = find_prior(sides[0], sides[1], romanizer=chosen.romanizer, dictionary=chosen.dictionary)
    blocks = infer_links(levels[0], levels[1], usable, prior, options.stages)
    parts = [symmetrise_block(block, options.symmetrise, options.threshold) for block in blocks]
    pair, i, j, probability = (np.concatenate(column) for column in zip(*parts, strict=True))
    # The part that gave the statistics comes first; links inside a pair are in order already.
    order = np.argsort(pair, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=len(source)))])
    made_by = f"vocabtransfer {__version__}, {options.name}"
    return WordAlignment(source, target, starts, i[order], j[order], probability[order], made_by)


def _usable_pairs(source: NumberedText, target: NumberedText) -> NDArray[np.int64]:
    shortest, longest = np.minimum(source.lengths, target.lengths), np.maximum(source.lengths, target.lengths)
    usable = np.flatnonzero((shortest > 0) & (longest <= MAX_WORDS))
    if not len(usable):
        raise VocabTransferError(f"none of {len(source)} sentence pairs has words on both sides, up to {MAX_WORDS}.")
    return usable


def _finish(
    alignment: WordAlignment,
    metadata: Mapping[str, Any] | None,
    links: str | Path | None,
    words: str | Path | None,
) -> WordTable:
    if links is not None:
        alignment.save_pharaoh(links)
    if words is not None:
        write_lines(Path(words), alignment.word_lines())
    return alignment.table(metadata)
