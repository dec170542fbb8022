"""Rotary embeddings in GGUF: the base, the rotated part of a head, and the scalings that llama.cpp has."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError

FACTORS, LONG_FACTORS, SHORT_FACTORS = (f"rope_{kind}.weight" for kind in ("freqs", "factors_long", "factors_short"))
PARTLY = ("phi3", "phi2", "gptneox")  # llama.cpp rotates a part of each head in these
LONG = ("phi3",)


def rope_settings(source: Checkpoint, architecture: str, head_dim: int) -> dict[str, Any]:
    """Return what the file says of the rotary embeddings; `VocabTransferError` for a scaling it cannot express.

    The key ``tensors`` holds factors by the names that they have in the file, float32 (rotated / 2,).
    """
    config = source.config
    rope = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    gemma3 = architecture == "gemma3"
    if gemma3:
        rope = _gemma3_rope(source, rope)
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base") or 0)
    theta = theta or (1e6 if gemma3 else 1e4)
    rotated = _rotated(source, rope, architecture, head_dim)
    found: dict[str, Any] = {"theta": theta, "rotated": rotated}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "linear":
        return found | {"rope_kind": "linear", "rope_factor": float(rope["factor"])}
    if kind == "llama3" and not gemma3:
        return found | {"tensors": {FACTORS: llama3_factors(rope, theta, rotated)}}
    if kind == "yarn" and not gemma3:
        return found | _yarn(source, rope)
    if kind == "longrope" and architecture in LONG:
        return found | _longrope(source, rope, rotated)
    if kind != "default":
        raise VocabTransferError(f"{source.name} has {kind!r} scaled rotary embeddings, which GGUF has no field for.")
    return found


def _gemma3_rope(source: Checkpoint, rope: Mapping[str, Any]) -> dict[str, Any]:
    local = rope.get("sliding_attention", {"rope_theta": source.config.get("rope_local_base_freq", 10000.0)})
    if local.get("rope_theta", 10000.0) != 10000.0 or local.get("rope_type", "default") != "default":
        raise VocabTransferError(f"{source.name} has another rotary base in its local layers than llama.cpp's.")
    return dict(rope.get("full_attention", rope))


def _rotated(source: Checkpoint, rope: Mapping[str, Any], architecture: str, head_dim: int) -> int:
    part = rope.get("partial_rotary_factor")
    for name in ("partial_rotary_factor", "rotary_pct"):
        part = source.config.get(name) if part is None else part
    if part in (None, 1.0):
        return head_dim
    if architecture not in PARTLY:
        raise VocabTransferError(f"{source.name} rotates only a part of each head, which llama.cpp does not here.")
    return int(head_dim * float(part))


def llama3_factors(rope: Mapping[str, Any], theta: float, head_dim: int) -> NDArray[np.float32]:
    """Return what Llama 3.1 divides each rotary frequency by, float32 (head_dim / 2,).

    Long waves are stretched by ``factor``, short ones stay, those between are interpolated (arXiv:2407.21783, and
    `_compute_llama3_parameters` of transformers).
    """
    half = head_dim // 2
    wavelengths = 2 * math.pi * theta ** (np.arange(half) / half)
    low, high, factor = float(rope["low_freq_factor"]), float(rope["high_freq_factor"]), float(rope["factor"])
    smooth = np.clip((rope["original_max_position_embeddings"] / wavelengths - low) / (high - low), 0, 1)
    factors: NDArray[np.float32] = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return factors


def _yarn(source: Checkpoint, rope: Mapping[str, Any]) -> dict[str, Any]:
    """YaRN (arXiv:2309.00071). llama.cpp knows the usual bounds only, and scales attention by 0.1 ln(factor) + 1."""
    bounds = rope.get("beta_fast") or 32, rope.get("beta_slow") or 1
    if bounds != (32, 1) or rope.get("truncate") is False:
        raise VocabTransferError(
            f"{source.name} has YaRN with other bounds than 32 and 1, which llama.cpp does not read."
        )
    original = rope.get("original_max_position_embeddings") or source.config["max_position_embeddings"]
    factor = float(rope.get("factor") or source.config["max_position_embeddings"] / original)

    def strength(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    wanted = rope.get("attention_factor")
    if wanted is None:
        scale, all_dimensions = rope.get("mscale"), rope.get("mscale_all_dim")
        wanted = strength(scale) / strength(all_dimensions) if scale and all_dimensions else strength(1.0)
    return {
        "rope_kind": "yarn",
        "rope_factor": factor,
        "rope_original": int(original),
        "rope_attention": float(wanted) / strength(1.0),
    }


def _longrope(source: Checkpoint, rope: Mapping[str, Any], rotated: int) -> dict[str, Any]:
    """LongRoPE (arXiv:2402.13753): factors for short and for long texts, one for each rotated pair."""
    config = source.config
    original = rope.get("original_max_position_embeddings") or config["original_max_position_embeddings"]
    factor = float(rope.get("factor") or config["max_position_embeddings"] / original)
    wanted = rope.get("attention_factor")
    if wanted is None:
        wanted = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    tensors = {LONG_FACTORS: rope["long_factor"], SHORT_FACTORS: rope["short_factor"]}
    if any(len(values) != rotated // 2 for values in tensors.values()):
        raise VocabTransferError(f"{source.name} has rotary factors for another head size than its {rotated} values.")
    return {
        "rope_original": int(original),
        "rope_attention": float(wanted),
        "tensors": {name: np.array(values, dtype=np.float32) for name, values in tensors.items()},
    }
