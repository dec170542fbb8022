"""What a run is going to take, said before it begins."""

import math

import torch

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.progress import duration
from vocabtransfer.running.half_body import multiplies_bfloat16
from vocabtransfer.running.plan import SMALL, multiplications
from vocabtransfer.training.processes import computed_in
from vocabtransfer.training.run import Run
from vocabtransfer.training.stage import ALL, LORA, NEW, OUTER, TABLES

#: Passes over all parameters, in multiplications and additions a parameter and token: forwards, backwards through the
#: activations, and backwards into the parameters that learn, as a share of all.
_SHARES = {NEW: 0.3, TABLES: 0.3, OUTER: 0.5, LORA: 0.5, ALL: 1.0}
#: Real passes reach about half the rate of one large product.
_REACHED = 0.5
_LEAST_SECONDS = 20.0


def sentence_before(run: Run, checkpoint: Checkpoint) -> str:
    """Say how many updates are to be made and about how long they take; "" where nothing is left or it is quick.

    The time is that of the body and the head, at half the rate of a product of two matrices measured here. Rows that
    are trained alone (see `RowDistiller`) take less.
    """
    done = run.state.finished()
    left = list(run.stages)[done:]
    if not left:
        return ""
    parameters = sum(math.prod(info.shape) for info in checkpoint.tensors.values())
    if not checkpoint.layout.tied and checkpoint.layout.input_name in checkpoint.tensors:
        parameters -= math.prod(checkpoint.tensors[checkpoint.layout.input_name].shape)  # looked up, not multiplied
    dtype = computed_in(run.accelerator)
    on = run.accelerator.device.type
    advice = _advice(dtype) if on == "cpu" else ""
    rate = _REACHED * multiplications(str(run.accelerator.device), dtype) * run.accelerator.num_processes
    seconds = 0.0
    for stage in left:
        each = 2 * parameters * (2 + _SHARES[stage.name]) * run.tokens_per_update
        seconds += each * stage.updates(run.tokens_per_update) / rate
    if seconds < _LEAST_SECONDS:
        return run.memory if 4 * parameters > SMALL else ""
    plan = ", ".join(f"{stage.updates(run.tokens_per_update):,} of {stage.name}" for stage in left)
    return (
        f"Updates of {run.tokens_per_update:,} tokens: {plan}. About {duration(seconds)} on {on} "
        f"({parameters / 1e6:,.0f} million parameters); after Ctrl-C the run can be resumed. {run.memory}".rstrip()
        + advice
    )


def _advice(dtype: torch.dtype) -> str:
    """Return a sentence where the other precision is the faster one on this CPU, else nothing."""
    if dtype == torch.bfloat16 and not multiplies_bfloat16():
        return " This CPU has no instructions for bfloat16: float32 is faster here."
    if dtype == torch.float32 and multiplies_bfloat16():
        return " This CPU has instructions for bfloat16: with `dtype` bfloat16 an update takes about half the time."
    return ""
