"""Where and how a model runs: planned from the sizes on disk and the free memory, before anything is loaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.model_class import model_class
from vocabtransfer.errors import UsageError
from vocabtransfer.progress import step
from vocabtransfer.running.load import load_model
from vocabtransfer.running.streamed import HEAD_BYTES, open_streamed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Share of the free memory that a model's weights may take: the rest is for what runs through them, and for others.
SHARE = 0.5
#: What is set aside for activations when layers are streamed.
WORKSPACE = 1 << 30
_LAYER = re.compile(r"^(.*?\.\d+)\.")


@dataclass(frozen=True)
class RunPlan:
    """How a model is run.

    ``weights`` are the bytes that the whole model takes in ``dtype``, ``layer`` the largest layer's, ``free`` the bytes
    it may use. A streamed model holds two layers, a block of the head and, when there is room, its first layers.
    """

    name: str
    device: str
    dtype: torch.dtype
    streamed: bool
    weights: int
    layer: int
    free: int

    @property
    def needed(self) -> int:
        """Bytes of weights in memory at a time."""
        return 2 * self.layer + min(HEAD_BYTES, self.weights) if self.streamed else self.weights

    @property
    def kept(self) -> int:
        """Bytes of layers that may stay in memory from one pass to the next."""
        return max(self.free - self.needed - WORKSPACE, 0) if self.streamed else 0

    def sentence(self) -> str:
        """Say in one sentence how the model runs and what that takes."""
        dtype = str(self.dtype).removeprefix("torch.")
        if not self.streamed:
            return f"{self.name} runs whole on {self.device} in {dtype}: {_gb(self.weights)} of {_gb(self.free)}."
        return (
            f"{self.name} runs layer by layer on {self.device} in {dtype}: {_gb(self.needed)} at a time of "
            f"{_gb(self.free)}, instead of {_gb(self.weights)}."
        )


def plan_run(
    checkpoint: Checkpoint, *, device: str | None = None, dtype: str | None = None, memory: int | None = None
) -> RunPlan:
    """Decide how to run a checkpoint.

    Args:
        checkpoint: the opened checkpoint.
        device: "cpu", "cuda", "cuda:1", "mps"; a GPU when there is one, if left out or "auto".
        dtype: "float32", "bfloat16" or "float16"; float32 on a CPU and the stored one elsewhere, if left out or "auto".
        memory: bytes that the run may use; half of what is free, if left out.

    Raises:
        UsageError: a device that is not there, or a dtype that is not known.
    """
    place = find_device(device)
    kind = _dtype(checkpoint, dtype, place)
    width = torch.empty((), dtype=kind).element_size()
    sizes = {name: math.prod(info.shape) * width for name, info in checkpoint.tensors.items()}
    layers: Counter[str] = Counter()
    for name, size in sizes.items():
        found = _LAYER.match(name)
        if found:
            layers[found[1]] += size
    weights = sum(sizes.values())
    free = memory if memory is not None else int(free_memory(place) * SHARE)
    return RunPlan(checkpoint.name, place, kind, weights > free, weights, max(layers.values(), default=0), free)


def open_planned(checkpoint: Checkpoint, plan: RunPlan) -> PreTrainedModel:
    """Open a checkpoint as planned: whole, or layer by layer. Raises `VocabTransferError` when it does not open."""
    with step(plan.sentence()):
        if not plan.streamed:
            whole: Any = load_model(checkpoint.path, dtype=plan.dtype)
            return cast(PreTrainedModel, whole.to(plan.device))
        config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
        found = model_class(checkpoint.config)
        make: Any = found._from_config if found is not None else AutoModelForCausalLM.from_config
        return open_streamed(
            checkpoint,
            lambda: make(config, dtype=plan.dtype),
            dtype=plan.dtype,
            device=plan.device,
            keep_bytes=plan.kept,
        )


def open_runnable(
    checkpoint: Checkpoint, *, device: str | None = "cpu", dtype: str | None = None, memory: int | None = None
) -> PreTrainedModel:
    """Open a checkpoint for running it: whole when it fits into the memory it may use, else layer by layer.

    The arguments are those of `plan_run`. Raises `VocabTransferError` when it opens in neither way.
    """
    return open_planned(checkpoint, plan_run(checkpoint, device=device, dtype=dtype, memory=memory))


def find_device(device: str | None) -> str:
    """Return the device to run on; `UsageError` for one that is not there."""
    if device in (None, "auto"):
        if torch.cuda.is_available():
            return "cuda"
        return "cpu"
    kind, _, number = str(device).partition(":")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in there or (number and not number.isdigit()):
        raise UsageError(f"There is no device {device!r}: choose auto, cpu, cuda, cuda:N or mps.")
    if int(number or 0) >= there[kind]:
        raise UsageError(f"The device {device!r} is not there: this machine has {there[kind]} of the kind {kind!r}.")
    return str(device)


def free_memory(device: str) -> int:
    """Return the free bytes of the memory that a device computes in."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)


def _dtype(checkpoint: Checkpoint, dtype: str | None, device: str) -> torch.dtype:
    if dtype not in (None, "auto"):
        if dtype not in DTYPES:
            raise UsageError(f"There is no dtype {dtype!r}: choose auto, {', '.join(DTYPES)}.")
        return DTYPES[str(dtype)]
    if device == "cpu":
        return torch.float32
    stored = Counter({"BF16": 0})
    for info in checkpoint.tensors.values():
        stored[info.dtype] += info.nbytes
    return {"F16": torch.float16, "F32": torch.float32}.get(stored.most_common(1)[0][0], torch.bfloat16)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
