"""One progress display for all long work. Library calls are silent unless a caller asks for the display."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vocabtransfer.public import public

T = TypeVar("T")

_display: ContextVar[Progress | None] = ContextVar("vocabtransfer_progress", default=None)
_open: list[Progress] = []  # what threads, which have no context of ours, speak to


@public
@contextlib.contextmanager
def show_progress(enabled: bool = True) -> Iterator[None]:
    """Show progress bars on standard error for all work done inside the ``with`` block."""
    if not enabled or _display.get() is not None:
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        token = _display.set(display)
        _open.append(display)
        try:
            yield
        finally:
            _open.remove(display)
            _display.reset(token)


def say(sentence: str) -> None:
    """Write a line above the bars that stays (nothing outside `show_progress`): what long work is about to take."""
    display = _display.get() or next(iter(_open), None)
    if display is not None and sentence:
        display.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Return a length of time as people say it.

    >>> duration(20), duration(400), duration(3 * 3600)
    ('20 seconds', '7 minutes', '3.0 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def track(items: Iterable[T], description: str | Callable[[], str], total: int | None = None) -> Iterator[T]:
    """Yield ``items`` unchanged while a bar counts them (no bar outside `show_progress`).

    A ``description`` that is called is asked anew after every item.
    """
    display = _display.get()
    if display is None:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    label = description if callable(description) else lambda: description
    task = display.add_task(label(), total=total)
    try:
        for item in items:
            yield item
            display.update(task, advance=1, description=label())
    finally:
        display.remove_task(task)


@contextlib.contextmanager
def step(description: str) -> Iterator[None]:
    """Show a spinner with a description while the block runs (nothing outside `show_progress`)."""
    display = _display.get()
    if display is None:
        yield
        return
    task = display.add_task(description, total=None)
    try:
        yield
    finally:
        display.remove_task(task)


@contextlib.contextmanager
def count_bytes(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar of bytes while the block runs; the block calls what it is given with the bytes that came."""
    display = _display.get()
    if display is None:
        yield lambda count: None
        return
    task = display.add_task(description, total=total, completed=done)
    try:
        yield lambda count: display.advance(task, count)
    finally:
        display.remove_task(task)
