"""A body whose matrix products run in bfloat16, which costs a run on a CPU with instructions for it a fraction of its time.

Only the linear layers change: the tables, the head, attention, norms and the sums of the residual stream stay float32,
so a bit per byte moves by less than a thousandth.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vocabtransfer.running.settings import run_settings

#: Hidden states of a halved body differ from the whole one's by rounding: by about a hundredth of their length.
ROUNDING = 0.1


def multiplies_bfloat16() -> bool:
    """Tell whether the CPU has instructions for bfloat16 products, of matrices (AMX) or vectors (AVX-512 BF16).

    Products of many rows are then one and a half to several times as fast as in float32; without them they are slower.
    """
    known = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(supported is not None and supported() for supported in known)


def halve_body(model: PreTrainedModel) -> None:
    """Let the linear layers of a model's body compute in bfloat16 from now on; float32 goes in and comes out.

    Their weights and biases are cast in place and can no longer be trained. Layers that are not `torch.nn.Linear`
    (GPT-2's) stay as they are.
    """
    _halve(_linear_layers(model))


def halve_where_faster(model: PreTrainedModel) -> bool:
    """Halve the body of a float32 model on a CPU that is faster so; return whether that was done.

    Not where `running_with` asks for float32, where weights are brought layer by layer, or where the model reads the
    weights of a linear layer by itself and does not run afterwards as it did before.
    """
    layers = _linear_layers(model)
    alike = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
    if run_settings().dtype is not None or not layers or not alike or not multiplies_bfloat16():
        return False
    before = _few_states(model)
    kept = [(layer, layer.weight, layer.bias) for layer in layers]
    hooks = _halve(layers)
    if before is not None and _close(_few_states(model), before):
        return True
    for hook in hooks:
        hook.remove()
    for layer, weight, bias in kept:
        layer.weight, layer.bias = weight, bias
    return False


@contextmanager
def products_in_bfloat16() -> Iterator[None]:
    """Let float32 products on the CPU take bfloat16 factors inside the block, where that is faster; sums are float32.

    For a head whose rows change too often to be cast. Nothing changes where `running_with` asks for a precision.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if run_settings().dtype is not None or not hasattr(matmul, "fp32_precision") or not multiplies_bfloat16():
        yield
        return
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _linear_layers(model: PreTrainedModel) -> list[torch.nn.Linear]:
    return [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]


def _halve(layers: list[torch.nn.Linear]) -> list[Any]:
    hooks: list[Any] = []
    for layer in layers:
        weight, bias = layer.weight, layer.bias
        layer.weight = torch.nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
        if bias is not None:
            layer.bias = torch.nn.Parameter(bias.detach().to(torch.bfloat16), requires_grad=False)
        hooks += [layer.register_forward_pre_hook(_narrow), layer.register_forward_hook(_widen)]
    return hooks


@torch.no_grad()
def _few_states(model: PreTrainedModel) -> Tensor | None:
    """Return the last states (places, hidden) of a few tokens; None when the body does not run."""
    rows = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
    ids = torch.arange(8)[None] * 7 % rows
    try:
        states: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    except Exception:  # whatever a model class trips over: it stays as it was
        return None
    return states


def _close(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and float((found - wanted).norm()) <= ROUNDING * float(wanted.norm())


def _narrow(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].to(torch.bfloat16), *inputs[1:])


def _widen(module: torch.nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.float()
