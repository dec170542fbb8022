"""A LoRA that goes with a head: put into a copy of the backbone's modules, so that no other head sees it."""

from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra.views import Slots


def inject_adapter(view: Any, slots: Slots, folder: Path, name: str) -> None:
    """Load a PEFT adapter into a view whose modules are all its own (see `make_view` with ``whole``).

    Raises `VocabTransferError` when PEFT is not installed, the adapter is damaged or does not fit the backbone, or when
    it brings tables of its own.
    """
    try:
        from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
        from safetensors.torch import load_file
    except ImportError:
        raise VocabTransferError(
            f"the head {name!r} has a LoRA, which needs PEFT: install it with pip install peft."
        ) from None
    try:
        config = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / "adapter_model.safetensors")
    except Exception as problem:
        raise VocabTransferError(f"{folder} is not an adapter that PEFT can read ({problem}).") from None
    tables = {slots.input, slots.output, slots.input.rpartition(".")[2], slots.output.rpartition(".")[2]}
    if getattr(config, "modules_to_save", None) or any(
        f".{table}." in f".{key}" for key in weights for table in tables
    ):
        raise VocabTransferError(
            f"{folder} brings modules or tables of its own, which a head already has: train LoRA only."
        )
    config.inference_mode = True
    dtype = view.get_output_embeddings().weight.dtype
    prefix = "base_model.model."
    weights = {key.removeprefix(prefix): value.to(dtype) for key, value in weights.items()}
    trained = [(parameter, parameter.requires_grad) for parameter in view.parameters()]
    try:
        inject_adapter_in_model(config, view, adapter_name="head")
        result: Any = set_peft_model_state_dict(view, weights, adapter_name="head")
    except Exception as problem:
        raise VocabTransferError(f"{folder} does not fit the backbone of this Hydra ({problem}).") from None
    finally:
        for parameter, wanted in trained:  # PEFT freezes everything else, which is shared with the backbone
            parameter.requires_grad_(wanted)
    lacking = [key for key in result.missing_keys if ".head" in key]
    if result.unexpected_keys or lacking:
        key = [*result.unexpected_keys, *lacking][0]
        raise VocabTransferError(f"{folder} is no adapter of this Hydra's backbone: only one of them has {key!r}.")
    shared = {id(parameter) for parameter, _ in trained}
    for parameter in view.parameters():
        if id(parameter) not in shared:
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(dtype)
    view.train(view.training)  # what was put in is in training mode, with its dropout
