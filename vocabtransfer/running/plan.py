"""Where and how a model runs: planned from the sizes on disk and the free memory, before anything is loaded."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from transformers import AutoConfig, PreTrainedModel

from vocabtransfer.checkpoint import Checkpoint, read_checkpoint
from vocabtransfer.checkpoint.model_class import made_from_config
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.progress import duration, step
from vocabtransfer.running.half_body import multiplies_bfloat16
from vocabtransfer.running.load import load_causal_model, load_model, quantisation
from vocabtransfer.running.settings import DTYPES, run_settings
from vocabtransfer.running.stored_weights import loaded_elements
from vocabtransfer.running.streamed import HEAD_BYTES, READABLE, open_streamed

_TYPES = {name: getattr(torch, name) for name in DTYPES}
#: Share of the free memory that a model's weights may take: the rest is for what runs through them, and for others.
SHARE = 0.5
#: What is set aside when layers are streamed: for activations, and half a gigabyte for the program itself.
WORKSPACE = 3 << 29
#: Models below so many bytes take seconds, and nobody needs to be told how many; nor below so many seconds.
SMALL, LEAST_SECONDS = 1 << 31, 5.0
#: What nobody asked for may take so long.
UNASKED_SECONDS = 1800.0
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

    def seconds(self, tokens: int) -> float:
        """Return about how long a pass over so many tokens takes: a multiplication for each weight and token.

        The rate is that of a product of two matrices, measured once; real passes reach a half to all of it.
        """
        parameters = self.weights / torch.empty((), dtype=self.dtype).element_size()
        return 2 * parameters * tokens / multiplications(self.device, self.dtype)

    def sentence(self, tokens: int = 0) -> str:
        """Say in one sentence how the model runs and what that takes; how long, when the tokens are known."""
        dtype = dtype_name(self.dtype)
        seconds = self.seconds(tokens) if tokens and self.weights > SMALL else 0
        lasts = f"; {duration(seconds)} or more for {tokens:,} tokens" if seconds >= LEAST_SECONDS else ""
        if not self.streamed:
            return (
                f"{self.name} runs whole on {self.device} in {dtype}: {_gb(self.weights)} of {_gb(self.free)}{lasts}."
            )
        return (
            f"{self.name} runs layer by layer on {self.device} in {dtype}: {_gb(self.needed)} at a time of "
            f"{_gb(self.free)}, instead of {_gb(self.weights)}{lasts}."
        )


def plan_run(
    checkpoint: Checkpoint, *, device: str | None = None, dtype: str | None = None, memory: int | None = None
) -> RunPlan:
    """Decide how to run a checkpoint.

    Args:
        checkpoint: the opened checkpoint.
        device: "cpu", "cuda", "cuda:1", "mps"; a GPU when there is one, if left out or "auto".
        dtype: "float32", "bfloat16" or "float16". If left out or "auto": float32 on a CPU and the stored one elsewhere;
            bfloat16 on a CPU that multiplies it fast, for a model stored so that does not fit in float32.
        memory: bytes that the run may use; half of what is free, if left out.

    What is left out is first taken from `running_with`, where a caller stands inside it.

    Raises:
        UsageError: a device that is not there, or a dtype that is not known.
    """
    here = run_settings()
    device, dtype = device or here.device, dtype or here.dtype
    memory = memory if memory is not None else here.memory
    place = find_device(device)
    free = memory if memory is not None else int(free_memory(place) * SHARE)
    kind = _dtype(checkpoint, dtype, place, free)
    width = torch.empty((), dtype=kind).element_size()
    sizes = {name: loaded_elements(name, checkpoint.tensors) * width for name in checkpoint.tensors}
    layers: Counter[str] = Counter()
    for name, size in sizes.items():
        found = _LAYER.match(name)
        if found:
            layers[found[1]] += size
    weights = sum(sizes.values())
    return RunPlan(checkpoint.name, place, kind, weights > free, weights, max(layers.values(), default=0), free)


def open_planned(checkpoint: Checkpoint, plan: RunPlan, tokens: int = 0) -> PreTrainedModel:
    """Open a checkpoint as planned: whole, or layer by layer. Raises `VocabTransferError` when it does not open."""
    with step(plan.sentence(tokens)):
        if not plan.streamed:
            whole: Any = load_model(checkpoint.path, dtype=plan.dtype)
            return cast(PreTrainedModel, whole.to(plan.device))
        config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
        return open_streamed(
            checkpoint,
            lambda: made_from_config(checkpoint.config, config, dtype=plan.dtype),
            dtype=plan.dtype,
            device=plan.device,
            keep_bytes=plan.kept,
        )


def open_runnable(
    checkpoint: Checkpoint,
    *,
    device: str | None = None,
    dtype: str | None = None,
    memory: int | None = None,
    tokens: int = 0,
) -> PreTrainedModel:
    """Open a checkpoint for running it: whole when it fits into the memory it may use, else layer by layer.

    The arguments are those of `plan_run`, but for the device, which is the CPU unless something else is asked for here
    or by `running_with`: so the same inputs give the same bytes on every machine. With ``tokens``, how many are going
    to be run, the step says how long that takes. Raises `VocabTransferError` when it opens in neither way.
    """
    return open_planned(
        checkpoint, plan_run(checkpoint, device=device or own_device(), dtype=dtype, memory=memory), tokens
    )


def load_for_scoring(folder: Path) -> PreTrainedModel:
    """Open a checkpoint folder for scoring: whole where it fits into the memory it may use, else layer by layer.

    It runs as `plan_run` says, on the CPU unless `running_with` says otherwise. Raises what `load_causal_model` and
    `open_streamed` raise, and `UsageError` for a device that is not there.
    """
    checkpoint = read_checkpoint(folder, folder.name)
    return open_causal(checkpoint, plan_run(checkpoint, device=own_device()))


def open_causal(checkpoint: Checkpoint, plan: RunPlan, tokens: int = 0) -> PreTrainedModel:
    """Open what goes on with text as planned; raises what `load_causal_model` and `open_streamed` raise."""
    if plan.streamed:
        return open_planned(checkpoint, plan, tokens)
    with step(plan.sentence(tokens)):
        model: Any = load_causal_model(checkpoint.path, plan.device, plan.dtype)
        return cast(PreTrainedModel, model.requires_grad_(False))


def cannot_fit(checkpoint: Checkpoint, tokens: int = 0) -> str:
    """Return why a checkpoint is not run here unasked, as a clause: its memory, or its time; "" where it is.

    A model that is too large for the memory it may use runs layer by layer, unless its body is quantised in a way that
    cannot be read so. ``tokens`` is how many would be run: more than half an hour is not spent unasked.
    """
    plan = plan_run(checkpoint, device=own_device())
    kind = quantisation(checkpoint.config)
    if plan.streamed and kind not in READABLE:
        return (
            f"it does not fit into {_gb(plan.free)}, and its body, quantised by {kind}, cannot be read layer by layer"
        )
    seconds = plan.seconds(tokens) if plan.weights > SMALL else 0
    return f"that would take {duration(seconds)} or more here" if seconds > UNASKED_SECONDS else ""


def load_placed(folder: Path) -> PreTrainedModel:
    """Load a checkpoint folder whole, in the precision it is stored in, on the CPU or where `running_with` says."""
    model: Any = load_model(folder, dtype="auto")
    return cast(PreTrainedModel, model.to(find_device(own_device())))


def own_device() -> str:
    """Return the device of our own runs: the CPU unless `running_with` says otherwise."""
    return run_settings().device or "cpu"


def running_facts(checkpoint: Checkpoint) -> dict[str, str]:
    """Return where our own runs of a checkpoint take place, and in what precision: for reports."""
    plan = plan_run(checkpoint, device=own_device())
    return {"device": plan.device, "dtype": dtype_name(plan.dtype)}


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32", "bfloat16" ..."""
    return str(dtype).removeprefix("torch.")


def needs_memory(
    doing: str,
    needed: int,
    device: str,
    advice: str = "take a smaller model, a `dtype` of fewer bytes or another `device`",
) -> str:
    """Return a sentence on what work needs and what is free; ``doing`` is its subject, such as "Serving hydra".

    Free is what the device has, or what `running_with` allows. Raises `VocabTransferError` when that is too little.
    """
    allowed = run_settings().memory
    free = free_memory(device) if allowed is None else allowed
    sentence = f"{doing} needs {_gb(needed)} of {_gb(free)} free on {device}"
    if needed > free:
        raise VocabTransferError(f"{sentence}: {advice}.")
    return f"{sentence}."


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


@cache
def multiplications(device: str, dtype: torch.dtype) -> float:
    """Return the floating-point operations a second of a product of two matrices, the best of three."""
    left, right = (torch.ones(512, 1024, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        float((left @ right.T)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * 512 * 512 * 1024 / best


def _dtype(checkpoint: Checkpoint, dtype: str | None, device: str, free: int) -> torch.dtype:
    if dtype not in (None, "auto"):
        if dtype not in _TYPES:
            raise UsageError(f"There is no dtype {dtype!r}: choose auto, {', '.join(DTYPES)}.")
        return cast(torch.dtype, _TYPES[str(dtype)])
    stored = Counter({"BF16": 0})
    for info in checkpoint.tensors.values():
        stored[info.dtype] += info.nbytes
    most = stored.most_common(1)[0][0]
    if device == "cpu":
        large = 4 * checkpoint.parameters > free and most == "BF16"
        return torch.bfloat16 if large and multiplies_bfloat16() else torch.float32
    return {"F16": torch.float16, "F32": torch.float32}.get(most, torch.bfloat16)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
