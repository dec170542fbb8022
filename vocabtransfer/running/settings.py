"""Where and how models run unless a call says otherwise: said once by a command, used by everything it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from vocabtransfer.blocks import BLOCK_BYTES, blocks_of
from vocabtransfer.errors import UsageError

DTYPES = ("float32", "bfloat16", "float16")
#: How many blocks of a table would fill the memory that a run may take.
BLOCKS_OF_MEMORY = 64
_PREFIXES = ("", "k", "m", "g", "t")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


@dataclass(frozen=True)
class RunSettings:
    """A device, a precision ("float32" ...), and the bytes a model may take; None leaves each to what is there."""

    device: str | None = None
    dtype: str | None = None
    memory: int | None = None


_NOTHING_SAID = RunSettings()
_CURRENT: ContextVar[RunSettings] = ContextVar("run_settings", default=_NOTHING_SAID)


def run_settings() -> RunSettings:
    """Return what holds here."""
    return _CURRENT.get()


@contextmanager
def running_with(device: str | None = None, dtype: str | None = None, memory: int | None = None) -> Iterator[None]:
    """Let models run so inside the block, wherever the call that opens them does not say otherwise.

    Tables are then worked on in blocks of a 64th of ``memory``, 32 MiB at most; see `vocabtransfer.blocks`.

    Raises `UsageError` for a precision that is not known and for a memory of nothing.
    """
    if dtype not in (None, "auto", *DTYPES):
        raise UsageError(f"There is no dtype {dtype!r}: choose auto, {', '.join(DTYPES)}.")
    if memory is not None and memory < 1:
        raise UsageError("Models need some memory: name a size such as 6GB.")
    settings = RunSettings(device, None if dtype == "auto" else dtype, memory)
    before = _CURRENT.set(settings)
    try:
        with blocks_of(None if memory is None else min(BLOCK_BYTES, max(memory // BLOCKS_OF_MEMORY, 1))):
            yield
    finally:
        _CURRENT.reset(before)


def parse_bytes(text: str) -> int:
    """Read a size such as ``6GB``, ``512MiB`` or ``4000000000``; `UsageError` for anything else.

    >>> parse_bytes("6GB"), parse_bytes("1.5 GiB"), parse_bytes("4096")
    (6000000000, 1610612736, 4096)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"{text!r} is not a size of memory: write it as 6GB or 512MB.")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** _PREFIXES.index(found[2].lower()))
