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


def rows_of_block(width: int, itemsize: int = 4) -> int:
    """Return how many rows of ``width`` numbers fit into a block: a multiple of `GROUP`, one group at least.

    >>> rows_of_block(1024), rows_of_block(1 << 20)
    (8192, 1024)
    """
    return max(block_bytes() // max(width * itemsize * GROUP, 1), 1) * GROUP


def row_blocks(count: int, width: int, itemsize: int = 4) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over ``count`` rows of ``width`` numbers, a block at a time.

    >>> with blocks_of(1):
    ...     list(row_blocks(2000, 8))
    [(0, 1024), (1024, 2000)]
    """
    size = rows_of_block(width, itemsize)
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
