"""Whether a model fits into the free memory, and what running out of it looks like, wherever it happens."""

import psutil
import torch

from vocabtransfer.running.settings import run_settings

_SIGNS = ("out of memory", "not enough memory", "can't allocate")


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell whether an exception means that there was not enough memory: Python's, torch's own, or a plain RuntimeError."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(sign in said for sign in _SIGNS)


def fits_in_memory(parameters: int) -> bool:
    """Tell whether a model of so many parameters can be run in float32 in half of the free memory, or in what is allowed."""
    allowed = run_settings().memory
    return bool(parameters * 4 < (psutil.virtual_memory().available / 2 if allowed is None else allowed))
