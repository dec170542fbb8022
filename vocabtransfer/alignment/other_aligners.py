"""Aligners of other projects behind the same interface, used only where they are installed.

Each explains the words of one side by those of the other, and the reverse; the two sets of links are joined by the
classical heuristics of `vocabtransfer.alignment.symmetrise`. eflomal (Östling and Tiedemann 2016) draws at random and
differs a little from run to run; thot (sil-thot's model of the same kind) is run with a fixed seed. The neural one is in
`vocabtransfer.alignment.neural_aligner`.
"""

import importlib
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import regex
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_text import NumberedText
from vocabtransfer.alignment.symmetrise import grow_diag_final_and
from vocabtransfer.alignment.word_alignment import WordAlignment, parse_links
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import read_lines
from vocabtransfer.progress import step

Sentences = Sequence[list[str]]
# Where the links of both directions are, as numbers of cells: source words x target words, pair after pair.
Ways = tuple[NDArray[np.int64], NDArray[np.int64]]

Runner = Callable[[Sentences, Sentences, NDArray[np.int64]], Ways]

_SPACES = regex.compile(r"[\s\p{Cc}\u2028\u2029]+")
_THOT_BATCH = 10_000


def align_with(
    name: str,
    source: NumberedText,
    target: NumberedText,
    usable: NDArray[np.int64],
    symmetrise: str,
    model: str | Path | None = None,
) -> WordAlignment:
    """Return the links that another aligner finds; sentence pairs that are not ``usable`` stay without.

    ``model`` is what the neural one reads with.

    Raises `UsageError` where the aligner is not installed and `VocabTransferError` when it fails.
    """
    sides = source.take(usable), target.take(usable)
    sentences = [[side.sentence(number) for number in range(len(side))] for side in sides]
    rows, columns = sides[0].lengths, sides[1].lengths
    base = np.concatenate([[0], np.cumsum(rows * columns)]).astype(np.int64)
    with step(f"aligning words with {name}"):
        found = _runner(name, model)(sentences[0], sentences[1], base)
    cells = [np.zeros(base[-1], dtype=np.bool_) for _ in found]
    for way, links in zip(cells, found, strict=True):
        way[links] = True
    if symmetrise == "intersection":
        linked = cells[0] & cells[1]
    elif symmetrise == "union":
        linked = cells[0] | cells[1]
    else:
        linked = grow_diag_final_and(sides[0].starts, sides[1].starts, base, *cells)
    where = np.flatnonzero(linked)
    pair = np.searchsorted(base, where, side="right") - 1
    i, j = np.divmod(where - base[pair], columns[pair])
    starts = np.concatenate([[0], np.cumsum(np.bincount(usable[pair], minlength=len(source)))]).astype(np.int64)
    ones = np.ones(len(where), np.float32)
    return WordAlignment(source, target, starts, i.astype(np.int32), j.astype(np.int32), ones, f"{name}, {symmetrise}")


def _eflomal(source: Sentences, target: Sentences, base: NDArray[np.int64]) -> Ways:
    try:
        aligner = importlib.import_module("eflomal").Aligner()
    except ImportError:
        raise UsageError("the aligner eflomal is not installed: pip install eflomal (it needs a C compiler).") from None
    with tempfile.TemporaryDirectory(prefix="vocabtransfer-") as folder:
        paths = [Path(folder) / name for name in ("source", "target", "forward", "backward")]
        for path, sentences in zip(paths, (source, target), strict=False):
            lines = (" ".join(_SPACES.sub("_", word) or "_" for word in sentence) + "\n" for sentence in sentences)
            path.write_text("".join(lines), encoding="utf-8", errors="replace")
        try:
            with paths[0].open(encoding="utf-8") as left, paths[1].open(encoding="utf-8") as right:
                aligner.align(left, right, links_filename_fwd=str(paths[2]), links_filename_rev=str(paths[3]))
            ways = [[parse_links(path, number, line) for number, line in read_lines(path)] for path in paths[2:]]
        except (OSError, RuntimeError, ValueError, ArithmeticError, VocabTransferError) as problem:
            raise VocabTransferError(f"eflomal failed: {problem}.") from None
    if any(len(way) != len(source) for way in ways):
        raise VocabTransferError("eflomal failed: it did not write links for every sentence pair.")
    widths = np.array([len(sentence) for sentence in target])
    return _cells(ways[0], base, widths), _cells(ways[1], base, widths)


def _cells(rows: list[list[tuple[int, int]]], base: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    pair = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    links = np.array([link for row in rows for link in row], dtype=np.int64).reshape(-1, 2)
    return np.asarray(base[pair] + links[:, 0] * widths[pair] + links[:, 1])


def _thot(source: Sentences, target: Sentences, base: NDArray[np.int64]) -> Ways:
    try:
        new_model = importlib.import_module("thot.alignment").EflomalAlignmentModel
    except ImportError:
        raise UsageError("the aligner thot is not installed: pip install sil-thot.") from None
    ways = []
    for given, made in ((source, target), (target, source)):
        model = new_model()
        model.seed, model.deterministic = 1, True
        for pair in zip(given, made, strict=True):
            model.add_sentence_pair(*pair)
        model.start_training()
        for _ in range(model.scheduled_iterations):
            model.train()
        model.end_training()
        cells = []
        for start in range(0, len(given), _THOT_BATCH):
            part = slice(start, start + _THOT_BATCH)
            for number, (_, matrix) in enumerate(model.get_best_alignments(given[part], made[part]), start):
                links = matrix.to_numpy() if given is source else matrix.to_numpy().T
                cells.append(base[number] + np.flatnonzero(links))
        ways.append(np.concatenate(cells))
    return ways[0], ways[1]


def _runner(name: str, model: str | Path | None) -> Runner:
    if name == "neural" and model is not None:
        from vocabtransfer.alignment.neural_aligner import link_by_vectors

        return partial(link_by_vectors, model)
    return {"eflomal": _eflomal, "thot": _thot}[name]
