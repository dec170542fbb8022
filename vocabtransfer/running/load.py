"""Load a checkpoint as the model it is."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from vocabtransfer.checkpoint.model_class import continues_text, model_class, opener
from vocabtransfer.errors import VocabTransferError, first_line
from vocabtransfer.files.json_files import read_json


def load_model(folder: Path, *, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """Load a checkpoint folder as the class that config.json names, for running it; nothing is downloaded.

    Where transformers lacks that class, or none is named, the model's body is loaded, or its causal model if the name
    says that it is one. Nothing in it can be trained: torch multiplies a batch in another way where a weight could be,
    and some processors round that otherwise; a model whose layers are read one by one gives the same bits so.

    Raises `VocabTransferError` with what transformers says when it cannot be loaded, a package that quantised weights
    need included.
    """
    kind = opener(read_json(folder / "config.json"))
    try:
        model: Any = kind.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except Exception as problem:
        raise VocabTransferError(f"the model does not load as {kind.__name__} ({first_line(problem)}).") from problem
    return cast(PreTrainedModel, model.eval().requires_grad_(False))


def load_causal_model(
    folder: Path, device: str = "cpu", precision: torch.dtype | None = None, **options: Any
) -> PreTrainedModel:
    """Load a checkpoint folder for scoring; nothing is downloaded.

    Not given, the precision is float32 on a CPU, and the checkpoint's own elsewhere. ``options`` are further ones of
    transformers' ``from_pretrained``; those that are None are left out.

    Raises `VocabTransferError` when transformers has no causal model for it, and for a device that is not there.
    """
    try:
        dtype = precision or (torch.float32 if device == "cpu" else "auto")
        given = {name: value for name, value in options.items() if value is not None}
        model: Any = folder_opener(folder).from_pretrained(folder, dtype=dtype, local_files_only=True, **given)
        return cast(PreTrainedModel, model.to(device).eval())
    except (ValueError, OSError, RuntimeError, AssertionError, ImportError) as problem:
        raise VocabTransferError(
            f"{folder} does not open as a causal model on {device} ({first_line(problem)})."
        ) from None


def quantisation(config: Mapping[str, Any]) -> str | None:
    """Return how config.json says that the body's weights are quantised ("gptq", "awq", "bitsandbytes"); None if not."""
    stated = config.get("quantization_config")
    if not isinstance(stated, Mapping):
        return None
    return str(stated.get("quant_method") or "a way of its own")


def cannot_run(config: Mapping[str, Any]) -> str:
    """Return why a model with a quantised body cannot be run here, as a clause; "" when it can, or is not quantised.

    transformers is asked, which knows what packages and devices each way of quantising needs; nothing is loaded.
    """
    kind = quantisation(config)
    if kind is None:
        return ""
    from transformers.quantizers.auto import AutoHfQuantizer

    try:
        quantizer: Any = AutoHfQuantizer.from_config(copy.deepcopy(config["quantization_config"]), pre_quantized=True)
        quantizer.validate_environment(device_map={"": "cpu"}, dtype=torch.float32, weights_only=True)
    except Exception as problem:  # each quantiser raises what it likes
        return f"its body is quantised ({kind}) and cannot run here ({first_line(problem)})"
    return ""


def causal_opener(config: Mapping[str, Any]) -> Any:
    """Return what opens a model that goes on with text: the class it names, if that does so (Gemma 3 with eyes)."""
    return (model_class(config) if continues_text(config) else None) or AutoModelForCausalLM


def folder_opener(folder: Path) -> Any:
    """Return `causal_opener` for a folder, also for one that does not say what it is."""
    file = folder / "config.json"
    return causal_opener(read_json(file) if file.is_file() else {})
