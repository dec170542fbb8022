"""Word vectors of two languages in one space: the source's rotated onto the target's by a dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.words import split_words
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text import Text
from vocabtransfer.initialization.inputs import TransferInputs
from vocabtransfer.initialization.neighbours import unit_rows
from vocabtransfer.initialization.vector_files import load_word_vectors
from vocabtransfer.initialization.word_vectors import Training, WordVectors, train_word_vectors

#: A pair of words is in the dictionary if it was aligned this often, where there are enough such pairs.
FEWEST_LINKS = 2.0
#: ... enough to determine a rotation well; below it, pairs that were aligned only once are taken as well.
ENOUGH_PAIRS = 1_000
#: fastText's settings as WECHSEL has them for a corpus of its own, but twice the learning rate and half the passes: a
#: dictionary held out of the rotation is found as well (Dutch, 1M words: P@10 is 0.61 after 10 passes at 0.05, 0.70
#: after 20, 0.66 after 8 at 0.1; Tatar, 25k words: 100 at 0.05, 0.42; 50 at 0.1, 0.42).
WORDS = Training(epochs=5, enough=2_000_000, most_epochs=50, min_count=5, shortest=5, longest=5, rate=0.1)


@dataclass(frozen=True, eq=False)
class BilingualVectors:
    """Word vectors of two languages and the matrix that turns source vectors into the target's space.

    ``rotation`` is float32 ``(source dim, target dim)``, with orthonormal rows or columns.
    """

    source: WordVectors
    target: WordVectors
    rotation: NDArray[np.float32]


def bilingual_vectors(inputs: TransferInputs, method: str) -> BilingualVectors:
    """Load or train the vectors of both languages and rotate one onto the other by the alignment's dictionary.

    Raises:
        UsageError: there are neither vectors nor text in one of the languages.
        VocabTransferError: a file cannot be used, or no pair of the alignment has vectors on both sides.
    """
    assert inputs.table is not None, "the registry checks that methods get the alignment they need"
    files = inputs.vectors
    source = language_vectors(files.source, inputs.source_text, "source", method, inputs.seed)
    target = language_vectors(files.target, inputs.text, "target", method, inputs.seed)
    words, translations = dictionary(inputs.table)
    both = source.known(words) & target.known(translations)
    if not both.any():
        raise VocabTransferError(
            "No word pair of the alignment has word vectors on both sides: check that alignment, vectors and texts are "
            "of the same two languages."
        )
    chosen = np.flatnonzero(both).tolist()
    rotation = procrustes(
        unit_rows(source.vectors([words[i] for i in chosen])),
        unit_rows(target.vectors([translations[i] for i in chosen])),
    )
    return BilingualVectors(source, target, rotation)


def language_vectors(path: Path | None, text: Text | None, side: str, method: str, seed: int) -> WordVectors:
    """Load the word vectors of a language or train them on text; ``side`` is "source" or "target"."""
    if path is not None:
        return load_word_vectors(path)
    if text is None:
        raise UsageError(
            f"The method {method} needs word vectors of the {side} language: give `{side}_vectors`, or text in it to "
            "train them on (`parallel` has both languages)."
        )
    lines = (" ".join(split_words(line)) for line in text())
    vectors = train_word_vectors(lines, WORDS, seed, f"training word vectors of the {side} language")
    if vectors is None:
        raise VocabTransferError(f"There is no word in the text of the {side} language: give more of it.")
    return vectors


def dictionary(table: WordTable) -> tuple[list[str], list[str]]:
    """Return the word pairs that are each other's most frequent link: source words, and target words in their order.

    Pairs aligned less than `FEWEST_LINKS` times are left out unless fewer than `ENOUGH_PAIRS` would remain.
    """
    links = table.counts.tocsr()
    best_source = _first_of_largest(links.indptr, links.data)
    columns = links.tocsc()
    best_target = _first_of_largest(columns.indptr, columns.data)
    source = np.where(best_source >= 0, links.indices[best_source] if links.nnz else -1, -1)
    target = np.where(best_target >= 0, columns.indices[best_target] if links.nnz else -1, -1)
    rows = np.flatnonzero(source >= 0)
    rows = rows[target[source[rows]] == rows]
    often = rows[links.data[best_source[rows]] >= FEWEST_LINKS]
    rows = often if len(often) >= ENOUGH_PAIRS else rows
    return [table.source_words[i] for i in source[rows].tolist()], [table.target_words[i] for i in rows.tolist()]


def procrustes(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the orthogonal matrix that brings ``source @ matrix`` nearest to ``target`` (Schönemann, 1966).

    Both are float32 with a row for each pair; where their lengths differ, the result has orthonormal rows or columns.
    """
    left, _, right = np.linalg.svd(source.T.astype(np.float64) @ target.astype(np.float64), full_matrices=False)
    rotation: NDArray[np.float32] = (left @ right).astype(np.float32)
    return rotation


def _first_of_largest(indptr: NDArray[np.integer[Any]], data: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return where in ``data`` the largest value of each row is, the first of equal ones; -1 for empty rows."""
    lengths = np.diff(indptr)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((np.arange(len(data)), -data, owners))
    result = np.full(len(lengths), -1, np.int64)
    filled = lengths > 0
    result[filled] = order[indptr[:-1][filled]]
    return result
