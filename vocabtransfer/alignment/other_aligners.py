"""Aligners of other projects behind the same interface, used only where they are installed.

Each explains the words of one side by those of the other, and the reverse; the two sets of links are joined by the
classical heuristics of `vocabtransfer.alignment.symmetrise`. eflomal (Östling and Tiedemann 2016) draws at random and
differs a little from run to run; thot (sil-thot's model of the same kind) is run with a fixed seed. The neural one is in
`vocabtransfer.alignment.neural_aligner`.
"""

import importlib
import tempfile
from pathlib import Path

import numpy as np
import regex
from numpy.typing import NDArray

from vocabtransfer.alignment.aligner_text import NumberedText
from vocabtransfer.alignment.registry import Aligner, Sentences, Ways, aligner, link_cells
from vocabtransfer.alignment.symmetrise import grow_diag_final_and
from vocabtransfer.alignment.word_alignment import WordAlignment, parse_links
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.text_files import read_lines
from vocabtransfer.progress import step

_SPACES = regex.compile(r"[\s\p{Cc}\u2028\u2029]+")
_THOT_BATCH = 10_000


def align_with(
    other: Aligner,
    source: NumberedText,
    target: NumberedText,
    usable: NDArray[np.int64],
    symmetrise: str,
    model: str | Path | None = None,
) -> WordAlignment:
    """Return the links that another aligner finds; sentence pairs that are not ``usable`` stay without.

    ``model`` is what an aligner reads with that needs one.

    Raises `UsageError` where the aligner is not installed and `VocabTransferError` when it fails.
    """
    sides = source.take(usable), target.take(usable)
    sentences = [[side.sentence(number) for number in range(len(side))] for side in sides]
    rows, columns = sides[0].lengths, sides[1].lengths
    base = np.concatenate([[0], np.cumsum(rows * columns)]).astype(np.int64)
    with step(f"aligning words with {other.name}"):
        found = other.run(sentences[0], sentences[1], base, model)
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
    return WordAlignment(
        source, target, starts, i.astype(np.int32), j.astype(np.int32), ones, f"{other.name}, {symmetrise}"
    )


@aligner("eflomal")
def _eflomal(source: Sentences, target: Sentences, base: NDArray[np.int64], model: str | Path | None) -> Ways:
    try:
        engine = importlib.import_module("eflomal").Aligner()
    except ImportError:
        raise UsageError("the aligner eflomal is not installed: pip install eflomal (it needs a C compiler).") from None
    with tempfile.TemporaryDirectory(prefix="vocabtransfer-") as folder:
        paths = [Path(folder) / name for name in ("source", "target", "forward", "backward")]
        for path, sentences in zip(paths, (source, target), strict=False):
            lines = (" ".join(_SPACES.sub("_", word) or "_" for word in sentence) + "\n" for sentence in sentences)
            path.write_text("".join(lines), encoding="utf-8", errors="replace")
        try:
            with paths[0].open(encoding="utf-8") as left, paths[1].open(encoding="utf-8") as right:
                engine.align(left, right, links_filename_fwd=str(paths[2]), links_filename_rev=str(paths[3]))
            ways = [[parse_links(path, number, line) for number, line in read_lines(path)] for path in paths[2:]]
        except (OSError, RuntimeError, ValueError, ArithmeticError, VocabTransferError) as problem:
            raise VocabTransferError(f"eflomal failed: {problem}.") from None
    if any(len(way) != len(source) for way in ways):
        raise VocabTransferError("eflomal failed: it did not write links for every sentence pair.")
    return link_cells(ways[0], base, target), link_cells(ways[1], base, target)


@aligner("thot")
def _thot(source: Sentences, target: Sentences, base: NDArray[np.int64], model: str | Path | None) -> Ways:
    try:
        new_model = importlib.import_module("thot.alignment").EflomalAlignmentModel
    except ImportError:
        raise UsageError("the aligner thot is not installed: pip install sil-thot.") from None
    ways = []
    for given, made in ((source, target), (target, source)):
        learner = new_model()
        learner.seed, learner.deterministic = 1, True
        for pair in zip(given, made, strict=True):
            learner.add_sentence_pair(*pair)
        learner.start_training()
        for _ in range(learner.scheduled_iterations):
            learner.train()
        learner.end_training()
        cells = []
        for start in range(0, len(given), _THOT_BATCH):
            part = slice(start, start + _THOT_BATCH)
            for number, (_, matrix) in enumerate(learner.get_best_alignments(given[part], made[part]), start):
                links = matrix.to_numpy() if given is source else matrix.to_numpy().T
                cells.append(base[number] + np.flatnonzero(links))
        ways.append(np.concatenate(cells))
    return ways[0], ways[1]
