"""How fast a run trains: tokens a second, and the share of the device's arithmetic that the model's own products take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from vocabtransfer.running.plan import multiplications

#: Dense bfloat16 products with float32 sums, in 10^12 operations a second, by a part of the device's name; the longest
#: name that fits counts. From NVIDIA's data sheets (H200, H100, A100, L40S, L40, L4, A40, A30, A10; Ada and Ampere GPU
#: architecture papers for GeForce and RTX; half of what a sheet states "with sparsity") and AMD's for the Instinct.
PEAKS = {
    "B200": 2250.0,
    "H200": 989.5,
    "H100": 989.5,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H20": 148.0,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "RTX A6000": 154.8,
    "RTX 6000 Ada": 364.2,
    "MI300X": 1307.4,
    "MI250X": 383.0,
}


def token_operations(model: PreTrainedModel, block: int) -> float:
    """Return the floating-point operations that training takes for a token of a row of ``block`` tokens.

    Two for every weight that a token is multiplied with, forwards; as many backwards to the activations; as many again
    for every weight that learns (6 N in all where all do). Attention adds 12 for every layer, query number and place of
    the row (arXiv 2204.02311, appendix B). Of experts, those that a token goes to are counted. What is computed again
    to save memory is not counted.
    """
    config: Any = model.config.get_text_config(decoder=True)
    table = model.get_input_embeddings().weight
    tied = model.get_output_embeddings() is not None and model.get_output_embeddings().weight is table
    total = 0.0
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or (parameter is table and not tied):
            continue  # added or looked up, not multiplied
        share = _share_of_experts(config) if ".experts." in name else 1.0
        total += share * parameter.numel() * (6 if parameter.requires_grad else 4)
    layers, heads = (int(getattr(config, key, 0) or 0) for key in ("num_hidden_layers", "num_attention_heads"))
    return total + 12.0 * layers * heads * head_width(config) * block


def head_width(config: Any) -> int:
    """Return how many numbers one head of attention works on; ``config`` is that of a body of text."""
    hidden, heads = (int(getattr(config, key, 0) or 0) for key in ("hidden_size", "num_attention_heads"))
    return int(getattr(config, "head_dim", 0) or hidden // max(heads, 1))


def _share_of_experts(config: Any) -> float:
    chosen = getattr(config, "num_experts_per_tok", None)
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    there = next((count for key in names if (count := getattr(config, key, None))), None)
    return chosen / there if chosen and there else 1.0


def peak_of(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Return a device's operations a second, and where the number is from: "data sheet", or "measured" here.

    Known GPUs have the rate of dense products in bfloat16, whatever is computed in; others, and a CPU, the best rate
    that a product of two matrices in ``dtype`` reached here.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [key for key in PEAKS if key.lower() in name.lower()]
        if known:
            return PEAKS[max(known, key=len)] * 1e12, "data sheet"
    return multiplications(str(device), dtype), "measured"


@dataclass
class Meter:
    """The speed of one stage, as far as this process saw it: evaluations, checkpoints and loading are not in it.

    ``operations`` are those of a token, ``peak`` those a second of one device, of which there are ``devices``; ``source``
    says where the peak is from. The first update, in which kernels are chosen, is left out when there are more.
    """

    stage: str
    operations: float
    peak: float
    source: str
    devices: int = 1
    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @contextmanager
    def update(self, tokens: int) -> Iterator[None]:
        """Measure the block as one update on so many tokens over all processes."""
        started = time.perf_counter()
        yield
        if self.updates == 1:
            self.tokens, self.seconds = 0, 0.0
        self.updates += 1
        self.tokens += tokens
        self.seconds += time.perf_counter() - started

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second over all processes; 0 before the first update."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def share(self) -> float:
        """Model FLOPs utilisation: the share of the devices' arithmetic that the model's own products take."""
        return self.tokens_per_second * self.operations / (self.peak * self.devices)

    def describe(self, what: str) -> str:
        """Return the label of a progress bar."""
        if not self.updates:
            return what
        return f"{what}, {self.tokens_per_second:,.0f} tokens/s, MFU {self.share:.0%}"

    def facts(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "stage": self.stage,
            "updates": self.updates,
            "tokens_per_second": round(self.tokens_per_second, 1),
            "operations_per_token": self.operations,
            "mfu": round(self.share, 4),
            "peak_operations_per_second": self.peak,
            "peak_source": self.source,
            "devices": self.devices,
        }
