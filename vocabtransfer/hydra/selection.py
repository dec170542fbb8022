"""Which head reads and which writes: a default for everybody, and a choice of one's own inside a ``with`` block."""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import NamedTuple

from vocabtransfer.errors import UsageError


class Selection(NamedTuple):
    """The head of the input table and the head of the output table."""

    input: str
    output: str

    @property
    def shown(self) -> str | tuple[str, str]:
        """The name when both are one head, else both names."""
        return self.input if self.input == self.output else (self.input, self.output)


# One variable for all models, keyed by identity: context variables are never freed, so there is no one for each model.
_chosen: ContextVar[Mapping[int, Selection] | None] = ContextVar("vocabtransfer_hydra_heads", default=None)


def chosen(owner: object) -> Selection | None:
    """Return what the innermost ``with`` block around the caller, in this thread or task, chose for a model."""
    return (_chosen.get() or {}).get(id(owner))


@contextlib.contextmanager
def choose(owner: object, selection: Selection) -> Iterator[None]:
    """Choose heads for a model in this thread or task while the block runs."""
    token = _chosen.set({**(_chosen.get() or {}), id(owner): selection})
    try:
        yield
    finally:
        _chosen.reset(token)


def select(current: Selection, name: str | None, input: str | None, output: str | None) -> Selection:
    """Return the selection that arguments ask for; what is not mentioned stays."""
    if name is not None:
        if input is not None or output is not None:
            raise UsageError("give either one head for both sides, or input and output.")
        return Selection(name, name)
    return Selection(input or current.input, output or current.output)
