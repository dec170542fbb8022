"""Stages of an adaptation: what each may change, for how long, and how fast."""

import math
import re
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.public import public, settle_fields
from vocabtransfer.training.processes import like

NEW, TABLES, OUTER, LORA, ALL = "new", "tables", "outer", "lora", "all"
STAGE_NAMES = (NEW, TABLES, OUTER, LORA, ALL)
OUTER_LAYERS = 2
LONGEST_WARM_UP = 100
LAST_SHARE = 0.1

_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[kMG]?)(?P<tokens>t|tokens?)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_LAYER = re.compile(r"(.+?\.)?(layers|layer|h|blocks?)\.(?P<number>\d+)\.")


@dataclass(frozen=True)
class Stage:
    """One stage: a name of `STAGE_NAMES`, a budget in updates or in tokens, and the highest learning rate.

    - ``new``: the rows that the transfer did not copy, and nothing else;
    - ``tables``: input table and head (one where they are tied), and the head's bias;
    - ``outer``: tables, and the first and last two layers (as in arXiv 2408.04303);
    - ``lora``: tables, and low-rank updates of every linear layer of the body (as in arXiv 2412.07633);
    - ``all``: every parameter.
    """

    name: str
    budget: int
    in_tokens: bool
    learning_rate: float

    def __post_init__(self) -> None:
        settle_fields(self)

    @classmethod
    @public
    def parse(cls, text: str) -> "Stage":
        """Read ``NAME:BUDGET:LEARNING_RATE``; a budget is a number of updates, or of tokens as in ``5Mtokens``.

        Raises `UsageError` for anything else.

        >>> Stage.parse("tables:2k:2e-4"), Stage.parse("lora:1.5Mtokens:1e-4").budget
        (Stage(name='tables', budget=2000, in_tokens=False, learning_rate=0.0002), 1500000)
        """
        name, budget, rate = [*text.split(":"), "", ""][:3]
        found = _BUDGET.fullmatch(budget)
        if text.count(":") != 2 or found is None:
            raise UsageError(
                f"`stages` {text}: write NAME:BUDGET:LEARNING-RATE, such as tables:2000:2e-4 or tables:5Mtokens:2e-4."
            )
        if name not in STAGE_NAMES:
            raise UsageError(f"`stages` {text}: the stages are {', '.join(STAGE_NAMES)}, not {name!r}.")
        number = round(float(found["number"]) * _UNITS[found["unit"]])
        try:
            learning_rate = float(rate)
        except ValueError:
            learning_rate = math.nan
        if number < 1 or not 0 < learning_rate < math.inf:
            raise UsageError(f"`stages` {text}: the budget must be 1 or more and the learning rate a number above 0.")
        return cls(name, number, found["tokens"] is not None, learning_rate)

    def check_finite(self, number: float, what: str, update: int) -> None:
        """Raise `VocabTransferError` when a loss or gradient of an update (counted from 1) is no number any more."""
        if not math.isfinite(number):
            raise VocabTransferError(
                f"The {what} became NaN or infinite at update {update} of stage {self.name}: give the stage a lower "
                f"learning rate than {self.learning_rate:g} and go on with `resume` and `restart_stage`, which begins this "
                "stage again."
            )

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        return f"{self.name}:{self.budget}{'tokens' if self.in_tokens else ''}:{self.learning_rate:g}"

    def updates(self, tokens_per_update: int) -> int:
        """Return how many updates the budget is worth."""
        return math.ceil(self.budget / tokens_per_update) if self.in_tokens else self.budget

    def rate(self, update: int, updates: int) -> float:
        """Return the learning rate of update number ``update`` (from 0) of ``updates``.

        It rises for a tenth of the stage, at most 100 updates, and falls along a cosine to a tenth of its height.
        """
        warm_up = min(LONGEST_WARM_UP, max(updates // 10, 1))
        if update < warm_up:
            return self.learning_rate * (update + 1) / warm_up
        done = (update - warm_up) / max(updates - warm_up, 1)
        return self.learning_rate * (LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def default_stages(has_map: bool, on_cpu: bool = False) -> tuple[Stage, ...]:
    """Return the stages of a run for which none were named: rows, tables, outer layers; see `Stage`.

    On a CPU they are rows and tables, and short: what brings most, in a time that one waits for.

    The rates are near those of arXiv 2412.21140, which calls tables very sensitive: on small batches, rows that a
    transfer made well are unlearned at 1e-3 before they improve.
    """
    first = (Stage(NEW, 100, False, 3e-4),) if has_map else ()
    if on_cpu:
        return (*(Stage(NEW, 50, False, 3e-4) for _ in first), Stage(TABLES, 300, False, 2e-4))
    return (*first, Stage(TABLES, 500, False, 2e-4), Stage(OUTER, 500, False, 1e-4))


@dataclass(frozen=True)
class LoraShape:
    """Rank and scale of the low-rank updates; the update counts ``alpha / rank`` times."""

    rank: int = 8
    alpha: float = 32.0


def table_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return input table, head and head bias by name, each parameter once: one table where they are tied."""
    head = model.get_output_embeddings()
    wanted = [model.get_input_embeddings().weight, head.weight, getattr(head, "bias", None)]
    ids = {id(parameter) for parameter in wanted if parameter is not None}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in ids}


def make_trainable(model: PreTrainedModel, stage: Stage, lora: LoraShape) -> dict[str, nn.Parameter]:
    """Freeze everything but what a stage trains; return that, by name, in the model's order.

    For ``lora``, the linear layers of the body are replaced by ones with low-rank updates.
    """
    model.requires_grad_(False)
    if stage.name == LORA:
        add_lora(model, lora)
    tables = table_parameters(model)
    outer = _outer_layers(model) if stage.name == OUTER else set()
    chosen = {}
    for name, parameter in model.named_parameters():
        wanted = name in tables or stage.name == ALL or name in outer or "lora_" in name
        parameter.requires_grad_(wanted and parameter.is_floating_point())
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def layer_number(name: str) -> int | None:
    """Return the number of the layer that a parameter belongs to; None for one in no layer."""
    found = _LAYER.match(name)
    return int(found["number"]) if found else None


def _outer_layers(model: PreTrainedModel) -> set[str]:
    numbers = {name: number for name, _ in model.named_parameters() if (number := layer_number(name)) is not None}
    if not numbers:
        raise VocabTransferError(f"{type(model).__name__} has no numbered layers: take the stage all or lora instead.")
    last = max(numbers.values()) - OUTER_LAYERS
    return {name for name, number in numbers.items() if number < OUTER_LAYERS or number > last}


def add_lora(model: PreTrainedModel, shape: LoraShape) -> Any:
    """Give every linear layer but the head a low-rank update that is zero at first; return PEFT's configuration.

    Raises `UsageError` when peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UsageError('A lora stage needs peft: pip install "vocabtransfer[training]".') from None
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=cast(int, shape.alpha),
        target_modules="all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(config, model)
    return config


def merge_lora(model: PreTrainedModel) -> list[str]:
    """Add the low-rank updates to the layers they stand on and take them out; return the names of what changed."""
    from peft.tuners.lora import LoraLayer

    changed = []
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in layers:
        module.merge()
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], module.get_base_layer())
        changed.append(f"{name}.weight")
    return changed


def load_values(model: PreTrainedModel, values: dict[str, torch.Tensor]) -> None:
    """Copy values into the parameters of these names."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(like(value, parameters[name]))
