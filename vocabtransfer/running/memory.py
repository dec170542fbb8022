"""What running out of memory looks like, wherever it happens."""

import torch

_SIGNS = ("out of memory", "not enough memory", "can't allocate")


def is_out_of_memory(problem: BaseException) -> bool:
    """Tell whether an exception means that there was not enough memory: Python's, torch's own, or a plain RuntimeError."""
    if isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(problem).lower()
    return isinstance(problem, RuntimeError) and any(sign in said for sign in _SIGNS)
