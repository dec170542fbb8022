"""A body whose matrix products run in bfloat16, which costs a probe on a CPU with such units half its time.

Only the linear layers change: the tables, the head, attention, norms and the sums of the residual stream stay float32,
so a bit per byte moves by less than a thousandth.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def halve_body(model: PreTrainedModel) -> None:
    """Let the linear layers of a model's body compute in bfloat16 from now on; float32 goes in and comes out.

    Their weights and biases are cast in place and can no longer be trained. Layers that are not `torch.nn.Linear`
    (GPT-2's) stay as they are.
    """
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.Linear):
            module.requires_grad_(False)
            module.to(torch.bfloat16)
            module.register_forward_pre_hook(_narrow)
            module.register_forward_hook(_widen)


def _narrow(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].to(torch.bfloat16), *inputs[1:])


def _widen(module: torch.nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.float()
