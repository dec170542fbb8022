"""A leaderboard as a picture: bits per byte against updates, or retrieval accuracies as bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError


def check_picture(path: Path, overwrite: bool = False) -> None:
    """Refuse, before any work is done, a picture that could not be drawn or would take the place of a file.

    Raises `UsageError` as `draw` does, and for a file that exists unless ``overwrite``.
    """
    _figure(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already: name another picture, or add `overwrite`.")


def draw(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what `vocabtransfer.leaderboard.contest.summary` gives into a file; the suffix says which kind.

    Raises:
        UsageError: matplotlib is not installed, or it knows no such kind of file.
    """
    figure = _figure(path)
    axes = figure.subplots()
    keys = list(table[0]["scores"]) if table else []
    if "accuracy" in keys:
        axes.barh([row["method"] for row in table][::-1], [row["scores"]["accuracy"] for row in table][::-1])
        axes.set_xlabel("retrieval accuracy, mean of both ways")
    else:
        for row in table:
            axes.plot([int(key) for key in keys], [row["scores"][key] for key in keys], marker="o", label=row["method"])
        axes.set_xlabel("updates of the vocabulary tables")
        axes.set_ylabel("bits per byte on held-out text")
        axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _figure(path: Path) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError('`plot` needs matplotlib: pip install "vocabtransfer[plot]".') from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    if path.suffix.lstrip(".").lower() not in figure.canvas.get_supported_filetypes():
        raise UsageError(f"`plot` {path}: give a name that ends in .svg, .png or .pdf.")
    return figure
