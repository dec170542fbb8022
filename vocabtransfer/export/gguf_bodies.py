"""The body of a model as llama.cpp names it: settings, tensor names, and what is done to the values.

One architecture, one entry in `BODIES`. What would make another model of it (a setting without a field, a tensor without
a name) is refused. The names are those that `vocabtransfer.checkpoint.gguf_model` reads, used the other way round.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.gguf_model import ARCHITECTURES, ENDS
from vocabtransfer.errors import VocabTransferError

ROPE_FREQS = "rope_freqs.weight"
GPT2_LAYER = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
GPT2_ENDS = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}
GEMMA_PATTERN = 6  # llama.cpp has it in its code: every sixth layer of Gemma 3 sees the whole text
FLOAT = np.dtype(np.float32)
BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Body:
    """How one transformers model type is named and laid out in the file."""

    architecture: str
    layer: Mapping[str, str]
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    pattern: str = r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)"
    permuted: bool = False  # ggml rotates neighbouring values, transformers the two halves of a head
    norm_offset: float = 0.0  # what the file's norm weights have on top of the checkpoint's
    transposed: bool = False  # linear layers are stored as (inputs, outputs)


def _known(name: str) -> Body:
    known = ARCHITECTURES[name]
    return Body(name, known.layer, permuted=known.permuted, norm_offset=known.norm_offset)


BODIES: Mapping[str, Body] = {
    "llama": _known("llama"),
    "mistral": _known("llama"),
    "qwen2": _known("qwen2"),
    "qwen3": _known("qwen3"),
    "gemma3_text": _known("gemma3"),
    "gpt2": Body(
        "gpt2",
        GPT2_LAYER,
        GPT2_ENDS,
        r"(?:transformer\.)?(?:h\.(\d+)\.)?(.+)\.(weight|bias)",
        transposed=True,
    ),
}


def find_body(source: Checkpoint) -> Body:
    """Return the entry for the model; `VocabTransferError` for one that cannot be written, or not whole."""
    kind = str(source.config.get("model_type"))
    if kind not in BODIES:
        raise VocabTransferError(
            f"{source.name} has the architecture {kind!r}, and only {', '.join(BODIES)} can be written as GGUF."
        )
    if "Classification" in source.architecture:
        raise VocabTransferError(f"{source.name} is a {source.architecture}; GGUF is written of language models only.")
    return BODIES[kind]


def tensor_names(source: Checkpoint, body: Body) -> dict[str, str]:
    """Return for each tensor of the checkpoint the name it gets in the file."""
    layer = {new: old for old, new in body.layer.items()}
    ends = {new: old for old, new in body.ends.items()}
    tied = source.layout.tied
    names = {}
    for name in source.tensors:
        if name == "lm_head.weight" and tied:
            continue
        if body.architecture == "gpt2" and re.search(r"\.attn\.(masked_)?bias$", name):
            continue  # the causal mask, a constant
        match = re.fullmatch(body.pattern, name)
        found = None
        if match:
            found = ends.get(match[2]) if match[1] is None else layer.get(match[2])
        if match is None or found is None:
            raise VocabTransferError(f"{source.name} has a tensor {name!r} that GGUF has no name for.")
        names[name] = f"{found}.{match[3]}" if match[1] is None else f"blk.{match[1]}.{found}.{match[3]}"
    return names


def settings(source: Checkpoint, body: Body) -> dict[str, Any]:
    """Return the sizes that the file names; refuse what would make it another model."""
    return _gpt2_settings(source) if body.architecture == "gpt2" else _llama_settings(source, body)


def _llama_settings(source: Checkpoint, body: Body) -> dict[str, Any]:
    config = source.config
    gemma = body.architecture == "gemma3"
    activation = config.get("hidden_activation" if gemma else "hidden_act", "gelu_pytorch_tanh" if gemma else "silu")
    if activation != ("gelu_pytorch_tanh" if gemma else "silu"):
        raise VocabTransferError(f"{source.name} has the activation {activation!r}, which GGUF cannot say.")
    window = config.get("sliding_window")
    sliding = config.get("use_sliding_window", config.get("model_type") == "mistral")
    if not gemma and window and sliding and window < config["max_position_embeddings"]:
        raise VocabTransferError(f"{source.name} attends in a sliding window, which llama.cpp would leave out.")
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    found = {
        "context": config["max_position_embeddings"],
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "inner": config["intermediate_size"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": head_dim,
        "rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        **_rope(source, head_dim, gemma),
    }
    if gemma:
        _check_gemma(source, head_dim)
        found |= {"window": window, "softcap": config.get("final_logit_softcapping")}
    return found


def _check_gemma(source: Checkpoint, head_dim: int) -> None:
    config = source.config
    layers = config["num_hidden_layers"]
    kinds = ["full_attention" if (i + 1) % GEMMA_PATTERN == 0 else "sliding_attention" for i in range(layers)]
    if config.get("layer_types", kinds) != kinds or config.get("sliding_window_pattern", 6) != GEMMA_PATTERN:
        raise VocabTransferError(f"{source.name} has other layers with a sliding window than llama.cpp gives Gemma 3.")
    if config.get("query_pre_attn_scalar", 256) != head_dim or config.get("attn_logit_softcapping"):
        raise VocabTransferError(f"{source.name} scales or caps attention in a way that llama.cpp does not.")
    if config.get("use_bidirectional_attention"):
        raise VocabTransferError(f"{source.name} attends in both directions, which is not written as GGUF yet.")


def _rope(source: Checkpoint, head_dim: int, gemma: bool) -> dict[str, Any]:
    """Read the rotary settings: the base, and a scaling that the file can express."""
    config = source.config
    rope = dict(config.get("rope_scaling") or {}) | dict(config.get("rope_parameters") or {})
    if gemma:
        local = rope.get("sliding_attention", {"rope_theta": config.get("rope_local_base_freq", 10000.0)})
        if local.get("rope_theta", 10000.0) != 10000.0 or local.get("rope_type", "default") != "default":
            raise VocabTransferError(f"{source.name} has another rotary base in its local layers than llama.cpp's.")
        rope = dict(rope.get("full_attention", rope))
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or (1e6 if gemma else 1e4))
    kind = rope.get("rope_type", rope.get("type", "default"))
    found: dict[str, Any] = {"theta": theta}
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise VocabTransferError(f"{source.name} rotates only a part of each head, which is not written as GGUF yet.")
    if kind == "linear":
        found["linear_factor"] = float(rope["factor"])
    elif kind == "llama3" and not gemma:
        found["rope_factors"] = llama3_factors(rope, theta, head_dim)
    elif kind != "default":
        raise VocabTransferError(f"{source.name} has {kind!r} scaled rotary embeddings, which GGUF has no field for.")
    return found


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


def _gpt2_settings(source: Checkpoint) -> dict[str, Any]:
    config = source.config
    if config.get("activation_function", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
        raise VocabTransferError(f"{source.name} has another activation than GPT-2's, which GGUF cannot say.")
    if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
        raise VocabTransferError(f"{source.name} scales attention in a way that llama.cpp does not.")
    hidden = config["n_embd"]
    return {
        "context": config["n_positions"],
        "hidden": hidden,
        "layers": config["n_layer"],
        "inner": config.get("n_inner") or 4 * hidden,
        "heads": config["n_head"],
        "epsilon": float(config.get("layer_norm_epsilon", 1e-5)),
    }


def add_settings(writer: Any, found: Mapping[str, Any]) -> None:
    """Put the settings into a `gguf.GGUFWriter`."""
    adders: Mapping[str, Callable[[Any], None]] = {
        "context": writer.add_context_length,
        "hidden": writer.add_embedding_length,
        "layers": writer.add_block_count,
        "inner": writer.add_feed_forward_length,
        "heads": writer.add_head_count,
        "kv_heads": writer.add_head_count_kv,
        "head_dim": writer.add_key_length,
        "theta": writer.add_rope_freq_base,
        "rms_epsilon": writer.add_layer_norm_rms_eps,
        "epsilon": writer.add_layer_norm_eps,
        "window": writer.add_sliding_window,
        "softcap": writer.add_final_logit_softcapping,
        "linear_factor": writer.add_rope_scaling_factor,
    }
    for name, value in found.items():
        if name in adders and value is not None:
            adders[name](value)
    if "head_dim" in found:
        writer.add_value_length(found["head_dim"])
        writer.add_rope_dimension_count(found["head_dim"])
    if "linear_factor" in found:
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)


def shape_in_file(source: Checkpoint, body: Body, name: str) -> tuple[int, ...]:
    """Return the shape that a tensor has in the file, rows first."""
    shape = tuple(source.tensors[name].shape)
    return shape[::-1] if _is_transposed(body, name, shape) else shape


def blocks_in_file(source: Checkpoint, body: Body, name: str, found: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Yield a tensor's values as the file has them, in blocks of rows and in the type that the checkpoint has."""
    shape = source.tensors[name].shape
    projection = re.search(r"\.self_attn\.([qk])_proj\.", name)
    if projection and body.permuted:
        heads = found["heads" if projection[1] == "q" else "kv_heads"]
        values = source.read(name)
        yield values.reshape(heads, 2, -1, *shape[1:]).transpose(1, 2).reshape(shape)
    elif _is_transposed(body, name, shape):
        yield source.read(name).T.contiguous()
    elif body.norm_offset and name.endswith("norm.weight"):
        yield source.read(name).to(torch.float32) + body.norm_offset
    else:
        step = max(1, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], step):
            yield source.read_rows(name, start, min(start + step, shape[0]))


def _is_transposed(body: Body, name: str, shape: tuple[int, ...]) -> bool:
    return body.transposed and len(shape) == 2 and re.search(r"\.c_(attn|proj|fc)\.", name) is not None
