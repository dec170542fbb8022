"""The list of initialisers: each a function from inputs to an initialisation, with the facts users choose by."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.inputs import Initialization, TransferInputs

Function = Callable[[TransferInputs], Initialization]


@dataclass(frozen=True)
class Method:
    """An initialiser and what a user must know to choose it."""

    name: str
    summary: str
    reference: str
    needs_alignment: bool
    function: Function

    def __call__(self, inputs: TransferInputs) -> Initialization:
        """Run the method; `UsageError` when it needs an alignment and the inputs have none."""
        if self.needs_alignment and inputs.counts is None:
            raise UsageError(
                f"The method {self.name} needs word alignments: give --alignment or --parallel, or take --method pieces."
            )
        return self.function(inputs)


METHODS: dict[str, Method] = {}


def method(name: str, summary: str, reference: str, *, needs_alignment: bool = False) -> Callable[[Function], Function]:
    """Register a function as the initialiser ``name``."""

    def register(function: Function) -> Function:
        METHODS[name] = Method(name, summary, reference, needs_alignment, function)
        return function

    return register


def find_method(name: str) -> Method:
    """Return a method by its name; dashes and underscores are the same. `UsageError` with suggestions otherwise."""
    wanted = name.strip().lower().replace("-", "_")
    if wanted in METHODS:
        return METHODS[wanted]
    near = difflib.get_close_matches(wanted, METHODS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(METHODS)}."
    raise UsageError(f"There is no method {name!r}: {hint}")
