"""GGUF architectures that can be turned back into transformers checkpoints: their settings and tensor names.

Only what is listed is converted, and every tensor of the file must be known: a field or tensor passed over would be a
model that is subtly another one. One architecture, one entry in `ARCHITECTURES`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.checkpoint.gguf_file import GgufFile
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import damaged

ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GEMMA_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# Rotary scaling of Llama 3.1 and later; the file has only the resulting factors, the constants are published.
LLAMA3_SCALING = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3_FACTORS = (8.0, 32.0)


@dataclass(frozen=True)
class Architecture:
    """How one GGUF architecture maps back: model class and type, layer names, what was done to the values."""

    model_class: str
    model_type: str
    layer: Mapping[str, str]
    settings: Mapping[str, Any]
    permuted: bool = False  # query and key rows were reordered for ggml's rotary embedding
    norm_offset: float = 0.0  # what the file's norm weights have on top of the checkpoint's
    sizes: Mapping[str, str] = field(default_factory=dict)


ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", "llama", LAYER, {"hidden_act": "silu"}, permuted=True),
    "qwen2": Architecture("Qwen2ForCausalLM", "qwen2", LAYER, {"hidden_act": "silu"}),
    "qwen3": Architecture("Qwen3ForCausalLM", "qwen3", LAYER | HEAD_NORMS, {"hidden_act": "silu"}),
    "gemma3": Architecture(
        "Gemma3ForCausalLM",
        "gemma3_text",
        LAYER | HEAD_NORMS | GEMMA_NORMS,
        {"hidden_activation": "gelu_pytorch_tanh", "rope_local_base_freq": 10000.0},
        norm_offset=1.0,
        sizes={"sliding_window": "attention.sliding_window", "query_pre_attn_scalar": "attention.key_length"},
    ),
}


def find_architecture(file: GgufFile) -> Architecture:
    """Return the entry for the file's architecture; `VocabTransferError` names one that is not supported."""
    name = file.fields.get("general.architecture")
    if name not in ARCHITECTURES:
        raise VocabTransferError(
            f"{file.path} has the architecture {name!r}, and only {', '.join(ARCHITECTURES)} can be converted: use the "
            "model's safetensors."
        )
    return ARCHITECTURES[name]


def build_config(file: GgufFile, dtype: str) -> dict[str, Any]:
    """Return the config.json that the file's fields amount to, without token ids.

    Raises `VocabTransferError` when a field that is needed is missing or says something that cannot be expressed.
    """
    architecture = find_architecture(file)
    table = _tensor_shape(file, "token_embd.weight")
    heads = _field(file, "attention.head_count")
    config = {
        "architectures": [architecture.model_class],
        "model_type": architecture.model_type,
        "vocab_size": table[0],
        "hidden_size": table[1],
        "intermediate_size": _field(file, "feed_forward_length"),
        "num_hidden_layers": _field(file, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(file, "attention.head_count_kv", heads),
        "head_dim": _field(file, "attention.key_length", table[1] // heads),
        "max_position_embeddings": _field(file, "context_length"),
        "rms_norm_eps": _shortest(_field(file, "attention.layer_norm_rms_epsilon")),
        "rope_theta": _shortest(_field(file, "rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": dtype,
        **architecture.settings,
        **{key: _field(file, name) for key, name in architecture.sizes.items()},
    }
    if any(isinstance(config[key], list) for key in ("intermediate_size", "num_key_value_heads")):
        raise VocabTransferError(f"{file.path} has layers of different sizes, which cannot be converted.")
    if architecture.model_type == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        config["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    scaling = _rope_scaling(file, config)
    if scaling:
        config["rope_scaling"] = scaling
    return config


def tensor_names(file: GgufFile) -> dict[str, str]:
    """Return for each tensor of the checkpoint, in the file's order, the name it has in the file.

    Raises `VocabTransferError` for tensors that the architecture does not know.
    """
    architecture = find_architecture(file)
    names = {}
    for name in file.tensors:
        if name == "rope_freqs.weight":
            continue  # checked by `build_config`, and computed anew from it
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)", name)
        new = None
        if match and match[1] is None:
            new = ENDS.get(match[2])
        elif match and match[2] in architecture.layer:
            new = f"model.layers.{match[1]}.{architecture.layer[match[2]]}"
        if match is None or new is None:
            raise VocabTransferError(f"{file.path} has a tensor {name!r}, unknown in {architecture.model_type}.")
        names[f"{new}.{match[3]}"] = name
    return names


def tensor_blocks(file: GgufFile, name: str, config: Mapping[str, Any]) -> Iterator[NDArray[np.float32]]:
    """Yield the float32 values of one of the file's tensors as the checkpoint has them, in blocks of rows."""
    architecture = find_architecture(file)
    if architecture.permuted and re.search(r"attn_[qk]\.", name):
        heads = config["num_attention_heads" if "attn_q." in name else "num_key_value_heads"]
        values = file.values(name)
        if heads < 1 or len(values) % (2 * heads):
            raise damaged(file.path, f"its {heads} heads do not divide {name!r} with {len(values)} rows")
        yield values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    elif architecture.norm_offset and name.endswith("norm.weight"):
        yield file.values(name) - np.float32(architecture.norm_offset)
    else:
        yield from file.blocks(name)


def _rope_scaling(file: GgufFile, config: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = _field(file, "rope.scaling.type", "none")
    if "rope_freqs.weight" in file.tensors:
        return _llama3_scaling(file, config)
    if kind == "none":
        return None
    if kind == "linear" and config["model_type"] != "gemma3_text":
        return {"rope_type": "linear", "factor": _shortest(_field(file, "rope.scaling.factor"))}
    raise VocabTransferError(f"{file.path} has the rotary scaling {kind!r}, which cannot be converted.")


def _llama3_scaling(file: GgufFile, config: Mapping[str, Any]) -> dict[str, Any]:
    found = file.values("rope_freqs.weight")
    half = config["head_dim"] // 2
    wavelengths = 2 * math.pi * config["rope_theta"] ** (np.arange(half) / half)
    low, high = LLAMA3_SCALING["low_freq_factor"], LLAMA3_SCALING["high_freq_factor"]
    smooth = np.clip((LLAMA3_SCALING["original_max_position_embeddings"] / wavelengths - low) / (high - low), 0, 1)
    for factor in LLAMA3_FACTORS:
        expected = 1 / ((1 - smooth) / factor + smooth)
        if found.shape == expected.shape and np.allclose(found, expected, rtol=1e-3):
            return {"rope_type": "llama3", "factor": factor, **LLAMA3_SCALING}
    raise VocabTransferError(f"{file.path} has rotary factors other than Llama 3's, which cannot be converted.")


def _field(file: GgufFile, key: str, default: Any = None) -> Any:
    value = file.fields.get(f"{file.fields['general.architecture']}.{key}", default)
    if value is None:
        raise VocabTransferError(f"{file.path} lacks the field {key!r}, so it cannot be converted.")
    return value


def _tensor_shape(file: GgufFile, name: str) -> tuple[int, ...]:
    if name not in file.tensors:
        raise VocabTransferError(f"{file.path} has no tensor {name!r}, so it cannot be converted.")
    return file.tensors[name].shape


def _shortest(value: float) -> float:
    """Undo the rounding of a decimal number to float32: 9.999999747378752e-06 was 1e-05."""
    return float(str(np.float32(value)))
