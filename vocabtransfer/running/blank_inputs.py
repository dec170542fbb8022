"""Input that says nothing, for models that write about a picture or a sound: a grey image, silence."""

from typing import Any

import torch
from torch import Tensor

SECOND = 16_000  # samples


def blank_inputs(model: Any) -> dict[str, Tensor] | None:
    """Return what a model takes besides tokens: nothing for models of text, one grey image or silence for others.

    Shapes are those that the configuration asks for, batch 1, float32. None when the model's input is of a kind that
    cannot be made up.
    """
    kind = str(model.main_input_name)
    if kind in ("input_ids", "inputs_embeds"):
        return {}
    make = {"pixel_values": _grey, "input_features": _silent_features, "input_values": _silence}.get(kind)
    values = make(model) if make is not None else None
    return {kind: values.to(model.device, model.dtype)} if values is not None else None


def _grey(model: Any) -> Tensor | None:
    parts = _configs(model)
    size = next((part.image_size for part in parts if getattr(part, "image_size", None)), None)
    if size is None:
        return None
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = next((part.num_channels for part in parts if getattr(part, "num_channels", None)), 3)
    return torch.zeros(1, channels, height, width)


def _silent_features(model: Any) -> Tensor | None:
    config = _configs(model)[0]
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):  # Whisper: two frames a position
        return torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
    width = getattr(config, "input_feat_per_channel", None)  # Speech2Text
    return torch.zeros(1, 100, width) if width else None


def _silence(model: Any) -> Tensor:
    return torch.zeros(1, SECOND)


def _configs(model: Any) -> list[Any]:
    config = model.config
    inner = (getattr(config, name, None) for name in ("encoder", "vision_config", "audio_config"))
    return [part for part in inner if part is not None and not isinstance(part, dict)] + [config]
