"""How many rows of a table are worked on at a time: one bound for everything that makes, reads or writes tables.

The bound never changes a result. Rows that are made together, and sums over a table, are always of `GROUP` rows, whatever
the bound; a block is some of these groups.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Bytes of a block where nobody says otherwise.
BLOCK_BYTES = 1 << 25
#: Rows that are made or summed together. A block has at least so many.
GROUP = 1024

_current: ContextVar[int] = ContextVar("vocabtransfer_block_bytes", default=BLOCK_BYTES)


def block_bytes() -> int:
    """Return the bytes that a block of rows may take here."""
    return _current.get()


@contextmanager
def blocks_of(size: int | None) -> Iterator[None]:
    """Let blocks take ``size`` bytes inside; as before where it is None."""
    token = _current.set(_current.get() if size is None else size)
    try:
        yield
    finally:
        _current.reset(token)


def row_blocks(count: int, width: int, *, single: bool = False) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over ``count`` rows of ``width`` float32 numbers, a block at a time: whole groups.

    With ``single`` a block may be any number of rows, for tensors whose rows are large and need not be made together.

    >>> with blocks_of(100):
    ...     list(row_blocks(2000, 8)), list(row_blocks(5, 8, single=True))
    ([(0, 1024), (1024, 2000)], [(0, 3), (3, 5)])
    """
    least = 1 if single else GROUP
    size = max(block_bytes() // max(4 * width * least, 1), 1) * least
    for start in range(0, count, size):
        yield start, min(start + size, count)


def groups(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield ``(begin, end)`` over rows ``start..stop``, cut at every multiple of `GROUP`.

    >>> list(groups(1000, 1100))
    [(1000, 1024), (1024, 1100)]
    """
    while start < stop:
        end = min((start // GROUP + 1) * GROUP, stop)
        yield start, end
        start = end
