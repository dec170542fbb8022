"""What an update minimises: the contract between the training loop and its objectives, and plain language modelling.

The loop makes `Batch` objects out of packed text and knows nothing of what is done with them; an objective turns one
into a summed loss and the number of things that were summed. The loop divides by that number over all passes and
processes of an update, so the result does not depend on how a batch was cut.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.training.table_forms import TableForm

IGNORED = -100


@dataclass(frozen=True, eq=False)
class Segment:
    """The part of one document that lies in one row of a batch.

    ``input_ids[row, start:stop]`` are the tokens of ``text``; ``offsets`` int32 (stop - start, 2) says which characters
    of ``text`` each of them covers, begin and end. A character that two byte tokens share belongs to both, also when the
    edge of a block parts them.
    """

    row: int
    start: int
    stop: int
    text: str
    offsets: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Batch:
    """Packed text for one pass on the device of the model.

    ``input_ids`` int64 (rows, 1 + block): the document separator, then ``block`` tokens of documents joined by
    separators; the last row of a stretch of text may be filled up with separators. ``labels`` int64 (rows, 1 + block):
    the same ids where a token is to be predicted from what stands before it in its row, `IGNORED` elsewhere (at
    separators and in the first column). ``segments`` are the documents' parts in the order of rows and places; they are
    there only for objectives with ``needs_text``. ``places`` int64 like ``input_ids`` counts a document's tokens from the
    separator in front of it, where documents of a row are kept apart; None where they see what stands before them.
    """

    input_ids: Tensor
    labels: Tensor
    segments: tuple[Segment, ...] = ()
    places: Tensor | None = None

    def inputs(self, stop: int | None = None) -> dict[str, Tensor]:
        """Return what the model is called with: the columns up to ``stop``."""
        ids = {"input_ids": self.input_ids[:, :stop]}
        return ids if self.places is None else {**ids, "position_ids": self.places[:, :stop]}


class Objective(Protocol):
    """Something to minimise. ``needs_text`` asks the loop to fill in ``Batch.segments``."""

    name: str
    needs_text: bool

    def loss(self, model: torch.nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Return the summed loss in nats (a scalar that requires grad) and how many tokens or chunks it sums.

        ``model`` may be wrapped (DDP, FSDP): call it exactly once, as a whole, with `Batch.inputs` and
        ``use_cache=False``; ask for ``output_hidden_states=True`` rather than reach for its parts. Where nothing in the
        batch counts, return zero times something the model computed, and 0. Random choices come from torch's own
        generator, which is saved and restored with a checkpoint; other state between calls would break exact resumption.
        """
        ...


@runtime_checkable
class ChoosesText(Protocol):
    """An objective that trains on parts of the target text only."""

    def choose(self, documents: Iterable[str]) -> Iterator[str]:
        """Yield what to train on of the documents of an epoch; the same documents give the same."""
        ...


@runtime_checkable
class FormsTables(Protocol):
    """An objective that decides what tables in training are made of, such as a map of the source's rows."""

    def form(self, tables: Mapping[str, torch.nn.Parameter]) -> TableForm:
        """Return the parameters that tables (rows, hidden), by name in the model, are made of."""
        ...


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What an objective is made from.

    ``tokenizer`` is that of the model in training; ``new_rows`` bool (rows,) marks the rows that a transfer made (None
    when the checkpoint has no token map); ``teacher`` is the opened checkpoint it learns from, None when not given;
    a teacher is loaded on ``device``, with ``dtype`` as its parameters' precision. ``model`` is the opened checkpoint in
    training.
    """

    tokenizer: PreTrainedTokenizerFast
    new_rows: NDArray[np.bool_] | None
    teacher: Checkpoint | None
    device: torch.device
    dtype: torch.dtype
    seed: int
    model: Checkpoint | None = None


class LanguageModelling:
    """Cross entropy of the next token (continued pre-training)."""

    name = "clm"
    needs_text = False

    def loss(self, model: torch.nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Return the summed cross entropy of all labels, and their number."""
        logits = model(**batch.inputs(-1), use_cache=False).logits
        labels = batch.labels[:, 1:]
        summed = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return summed, int((labels != IGNORED).sum())


Maker = Callable[[Surroundings], Objective]


@dataclass(frozen=True)
class Registered:
    """An objective by name; ``teacher`` says that it learns from a model with the old tokenizer."""

    name: str
    make: Maker
    teacher: bool


#: What is registered so far; `objectives` registers ours first.
OBJECTIVES: dict[str, Registered] = {}
# Modules whose import registers objectives; this one is the first.
_SHIPPED = (
    "vocabtransfer.training.distill",
    "vocabtransfer.training.alm",
    "vocabtransfer.training.learned_map",
)


def objective(name: str, *, teacher: bool = False) -> Callable[[Maker], Maker]:
    """Register a function from `Surroundings` to an `Objective` under a name.

    With ``teacher`` it cannot be asked for without one, and ``surroundings.teacher`` is an opened checkpoint.
    """

    def register(make: Maker) -> Maker:
        OBJECTIVES[name] = Registered(name, make, teacher)
        return make

    return register


def objectives() -> dict[str, Registered]:
    """Return every objective by its name, those that are registered from outside included."""
    for module in _SHIPPED:
        import_module(module)
    return dict(OBJECTIVES)


@objective("clm")
def _language_modelling(surroundings: Surroundings) -> Objective:
    return LanguageModelling()


def find_objective(name: str, surroundings: Surroundings) -> Objective:
    """Return an objective by name.

    Raises `UsageError` for an unknown name, for a teacher that is missing or not used, and what the objective refuses.
    """
    return check_objective(name, surroundings.teacher is not None).make(surroundings)


def check_objective(name: str, has_teacher: bool) -> Registered:
    """Return a registered objective; `UsageError` for an unknown one, or a teacher that is missing or not used."""
    known = objectives()
    if name not in known:
        raise UsageError(f"`objective` is one of {', '.join(known)}, not {name!r}.")
    if known[name].teacher and not has_teacher:
        raise UsageError(f"`objective='{name}'` learns from a model with the old tokenizer: name it with `teacher`.")
    if has_teacher and not known[name].teacher:
        teachable = [entry.name for entry in known.values() if entry.teacher]
        raise UsageError(f"`teacher` is for {' and '.join(teachable)}: `objective='{name}'` has none.")
    return known[name]
