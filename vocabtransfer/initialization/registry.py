"""The list of initialisers: each a function from inputs to an initialisation, with the facts users choose by."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization.inputs import Initialization, TransferInputs

Function = Callable[[TransferInputs], Initialization]


class Need(Enum):
    """Something a method cannot work without; the value says how a user gives it."""

    ALIGNMENT = "word alignments: give `alignment` or `parallel`"
    TEXT = "text in the target language: give `text` or `parallel`"
    DONOR = "a donor model that has the target tokenizer's tokens: give `donor`"
    BODY = "a causal source model that can be run in the memory there is, and words or text of the target language"
    TABLES = "the source model's tables: open the source as a checkpoint"


@dataclass(frozen=True)
class Method:
    """An initialiser and what a user must know to choose it.

    ``separate_output`` says that on untied models the head's rows are made in another way than the input's; a tied
    model gets the input's. ``calibrated`` says that matching the head to the language's token frequencies is a part of
    the method; with any other it is done on request. ``rivals`` are other methods (``name`` or ``name+calibrate``) that
    it is measured against where there is text to measure on; the best is taken.
    """

    name: str
    summary: str
    reference: str
    needs: frozenset[Need]
    separate_output: bool
    calibrated: bool
    function: Function
    rivals: tuple[str, ...] = ()

    def __call__(self, inputs: TransferInputs) -> Initialization:
        """Run the method; `UsageError` naming what it needs and the inputs do not have."""
        given = {
            Need.ALIGNMENT: inputs.table,
            Need.TEXT: inputs.text,
            Need.DONOR: inputs.donor,
            Need.BODY: inputs.body,
            Need.TABLES: inputs.tables,
        }
        for need in Need:
            if need in self.needs and given[need] is None:
                raise UsageError(f"The method {self.name} needs {need.value}, or take `method='pieces'`.")
        return self.function(inputs)


METHODS: dict[str, Method] = {}

#: What papers and tools call methods that are here under another name.
ALIASES: dict[str, str] = {
    "fvt": "pieces",  # Fast Vocabulary Transfer
    "vipi": "pieces",  # Vocabulary initialisation with partial inheritance, 2022
    "retok": "pieces",  # ReTok, arXiv 2410.04335
    "subword_mean": "pieces",
    "ramen": "trans_tokenization",  # rows by alignment probabilities, arXiv 2002.07306
    "tweety": "trans_tokenization",
    "tokensurgeon": "omp",  # mergekit's tool
    "transplant_vocab": "transplant",
    "resize_token_embeddings": "hewitt",  # what transformers does on a resize
}


def method(
    name: str,
    summary: str,
    reference: str,
    *needs: Need,
    separate_output: bool = False,
    calibrated: bool = False,
    rivals: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """Register a function as the initialiser ``name``."""

    def register(function: Function) -> Function:
        facts = name, summary, reference, frozenset(needs), separate_output, calibrated
        METHODS[name] = Method(*facts, function, rivals)
        return function

    return register


def find_method(name: str) -> Method:
    """Return a method by its name or an alias of the field; dashes and underscores are the same.

    Raises `UsageError` with suggestions for a name that is neither.
    """
    wanted = name.strip().lower().replace("-", "_")
    wanted = ALIASES.get(wanted, wanted)
    if wanted in METHODS:
        return METHODS[wanted]
    near = difflib.get_close_matches(wanted, METHODS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(METHODS)}."
    raise UsageError(f"There is no method {name!r}: {hint}")
