"""Figures of tokenizer comparisons and of vocabulary sizes, drawn by matplotlib (an extra)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.compare import Comparison
from vocabtransfer.files.whole import whole_path
from vocabtransfer.tokenization.size import SizeChoice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")


def check_plot(path: Path, overwrite: bool) -> None:
    """Refuse, before any work, a plot that could not be drawn or written.

    Raises `UsageError` for an unknown suffix or without matplotlib, and `VocabTransferError` for a file that exists.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: the name of a plot ends in {', '.join(SUFFIXES)}.")
    if path.exists() and not overwrite:
        raise VocabTransferError(f"{path} exists already: choose another name, or allow overwriting (`overwrite`).")
    _figure(1, 1, 1.0)


def plot_comparison(comparison: Comparison, path: Path, *, overwrite: bool = False) -> None:
    """Draw tokens per word and bytes per token, and parity where there is English, by domain and tokenizer.

    Raises what `check_plot` raises.
    """
    check_plot(path, overwrite)
    names = [vocabulary.tokenizer for vocabulary in comparison.vocabularies]
    panels = {"tokens_per_word": "tokens per word", "bytes_per_token": "bytes per token"}
    if any(figures.parity_to_first is not None for figures in comparison.texts):
        panels["parity_to_first"] = f"tokens for one token that {names[0]} takes for the same in English"
    bars = len(names) * len(comparison.domains)
    figure, axes = _figure(len(panels), 1, max(6.0, 0.45 * bars))
    for axis, (field, title) in zip(axes, panels.items(), strict=True):
        _bars(axis, comparison, names, field)
        axis.set_title(title)
    if len(names) > 1:
        figure.legend(names, loc="outside lower center", ncols=min(4, len(names)), frameon=False)
    _save(figure, path)


def plot_sizes(choice: SizeChoice, path: Path, *, overwrite: bool = False) -> None:
    """Draw tokens per word and relative work against the vocabulary size, the chosen size marked.

    Raises what `check_plot` raises.
    """
    check_plot(path, overwrite)
    figure, axes = _figure(1, 2, 9.0)
    sizes = [point.size for point in choice.points]
    curves = {
        "tokens per word (unseen words)": [point.tokens_per_word for point in choice.points],
        "tokens × parameters, relative to the best": [point.work for point in choice.points],
    }
    for axis, (title, values) in zip(axes, curves.items(), strict=True):
        axis.plot(sizes, values, marker=".")
        axis.axvline(choice.size, color="0.6", linestyle="--")
        axis.set_xscale("log")
        ticks = [1000 * 2**power for power in range(12) if sizes[0] <= 1000 * 2**power <= sizes[-1]] or sizes
        axis.set_xticks(ticks, [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_xlabel(f"vocabulary size (chosen: {choice.size:,})")
        axis.set_title(title)
    _save(figure, path)


def _bars(axis: "Axes", comparison: Comparison, names: list[str], field: str) -> None:
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        heights = [getattr(comparison.of(name, domain), field) or 0.0 for domain in comparison.domains]
        at = [i + (place - (len(names) - 1) / 2) * width for i in range(len(heights))]
        bars = axis.bar(at, heights, width)
        axis.bar_label(bars, fmt="%.2f", fontsize=7)
    axis.margins(y=0.12)
    axis.set_xticks(range(len(comparison.domains)), comparison.domains, rotation=30, ha="right")


def _figure(rows: int, columns: int, width: float) -> tuple["Figure", list["Axes"]]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError('Plots need matplotlib: pip install "vocabtransfer[plot]".') from None
    matplotlib.rcParams["svg.hashsalt"] = "vocabtransfer"  # the same figures give the same bytes
    figure = Figure(figsize=(width, 2.8 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _save(figure: Any, path: Path) -> None:
    """Write beside the file and rename."""
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    try:
        with whole_path(path) as part:
            figure.savefig(part, metadata=dates, dpi=150)
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be written ({problem.strerror or problem}).") from None
