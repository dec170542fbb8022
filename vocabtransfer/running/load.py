"""Load a checkpoint as the model it is."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from vocabtransfer.errors import VocabTransferError


def load_causal_model(folder: Path, device: str = "cpu") -> PreTrainedModel:
    """Load a checkpoint folder for scoring: float32 on a CPU, its own precision elsewhere. Nothing is downloaded.

    Raises `VocabTransferError` when transformers has no causal model for it, and for a device that is not there.
    """
    try:
        dtype = torch.float32 if device == "cpu" else "auto"
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        return cast(PreTrainedModel, model.to(device).eval())
    except (ValueError, OSError, RuntimeError, AssertionError) as problem:
        reason = str(problem).strip().splitlines()[0].rstrip(".:") if str(problem).strip() else type(problem).__name__
        raise VocabTransferError(f"{folder} does not open as a causal model on {device} ({reason}).") from None
