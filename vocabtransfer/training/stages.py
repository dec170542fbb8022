"""What a stage of an adaptation trains in a model."""

import re
from collections.abc import Collection
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.training.processes import like
from vocabtransfer.training.stage import ALL, LORA, OUTER, LoraShape, Stage

OUTER_LAYERS = 2
_LAYER = re.compile(r"(.+?\.)?(layers|layer|h|blocks?)\.(?P<number>\d+)\.")


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


def outer_numbers(numbers: Collection[int]) -> set[int]:
    """Return which numbers of layers are among the first and last two."""
    last = max(numbers, default=0) - OUTER_LAYERS
    return {number for number in numbers if number < OUTER_LAYERS or number > last}


def _outer_layers(model: PreTrainedModel) -> set[str]:
    numbers = {name: number for name, _ in model.named_parameters() if (number := layer_number(name)) is not None}
    if not numbers:
        raise VocabTransferError(f"{type(model).__name__} has no numbered layers: take the stage all or lora instead.")
    outer = outer_numbers(numbers.values())
    return {name for name, number in numbers.items() if number in outer}


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
