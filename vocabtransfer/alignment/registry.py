"""The list of aligners that stand beside ours: each a function from sentence pairs to links in both directions."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import UsageError

OWN = "vocabtransfer"

Sentences = Sequence[list[str]]
# Where the links of both directions are, as numbers of cells: source words x target words, pair after pair.
Ways = tuple[NDArray[np.int64], NDArray[np.int64]]
Runner = Callable[[Sentences, Sentences, NDArray[np.int64], str | Path | None], Ways]


@dataclass(frozen=True)
class Aligner:
    """A registered aligner.

    ``needs_model`` says that it reads with a model that knows both languages; ``symmetrise`` is how the links of both
    directions become one set unless the person says otherwise.
    """

    name: str
    run: Runner
    needs_model: bool
    symmetrise: str


#: What is registered so far; `aligners` registers ours first.
ALIGNERS: dict[str, Aligner] = {}
# Modules whose import registers aligners.
_SHIPPED = ("vocabtransfer.alignment.other_aligners", "vocabtransfer.alignment.neural_aligner")


def aligner(
    name: str, *, needs_model: bool = False, symmetrise: str = "grow-diag-final-and"
) -> Callable[[Runner], Runner]:
    """Register a function as the aligner ``name``.

    It is called with the words of the source sentences and of the target sentences (lists of equal length, no sentence
    empty), ``base`` int64 (pairs + 1) which says where the cells of each pair start, and the model or None. It returns
    the links of both directions as numbers of cells: `link_cells` makes them out of (i, j) pairs.
    """

    def register(run: Runner) -> Runner:
        ALIGNERS[name] = Aligner(name, run, needs_model, symmetrise)
        return run

    return register


def aligners() -> dict[str, Aligner]:
    """Return every aligner but our own by its name, those that are registered from outside included."""
    for module in _SHIPPED:
        import_module(module)
    return dict(ALIGNERS)


def find_aligner(name: str) -> Aligner | None:
    """Return an aligner by its name, None for our own; `UsageError` for a name that is neither."""
    if name == OWN:
        return None
    known = aligners()
    if name not in known:
        near = difflib.get_close_matches(name, [OWN, *known], n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join([OWN, *known])}."
        raise UsageError(f"there is no aligner {name!r}: {hint}")
    return known[name]


def link_cells(
    links: Sequence[Iterable[tuple[int, int]]], base: NDArray[np.int64], target: Sentences
) -> NDArray[np.int64]:
    """Turn the links of each pair, (source word, target word), into int64 numbers of cells."""
    rows = [list(row) for row in links]
    widths = np.array([len(sentence) for sentence in target])
    pair = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    cells = np.array([link for row in rows for link in row], dtype=np.int64).reshape(-1, 2)
    return np.asarray(base[pair] + cells[:, 0] * widths[pair] + cells[:, 1])
