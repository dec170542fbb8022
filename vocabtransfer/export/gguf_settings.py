"""The settings of a model in GGUF. What would make another model of it, and has no field in the file, is refused."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.export.gguf_bodies import PICTURES, Body, first_position
from vocabtransfer.export.gguf_rope import LONG_FACTORS, rope_settings

TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
GEMMA = ("gemma", "gemma2", "gemma3")
# llama.cpp has these in its code: the last of so many layers sees the whole text, or is not rotated.
GEMMA_PATTERN = {"gemma2": 2, "gemma3": 6}
SMOLLM3_PATTERN = 4
GEMMA2_27B_LAYERS = 46
POOLING = {"mean": 1, "cls": 2, "lasttoken": 3}
MEAN_NOTE = (
    "the model does not say how its states become one vector; the file says by their mean (llama.cpp: --pooling)."
)


def settings(source: Checkpoint, body: Body) -> dict[str, Any]:
    """Return the sizes that the file names; `VocabTransferError` for what would make it another model."""
    readers = {"gpt2": _gpt2, "gptneox": _gpt_neox, "phi2": _phi2, "bert": _bert}
    return readers.get(body.architecture, _decoder)(source, body)


def body_notes(source: Checkpoint, body: Body, found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return sentences on what llama.cpp does otherwise with this body."""
    notes = []
    window = _window(source)
    if body.architecture not in GEMMA_PATTERN and window:
        notes.append(
            f"llama.cpp attends to the whole text where the model sees {window} tokens: longer texts get other results."
        )
    if LONG_FACTORS in found.get("tensors", {}):
        notes.append(
            f"llama.cpp takes the rotary factors for long texts when its context is over {found['rope_original']} "
            "tokens; the model when the text is."
        )
    if source.config.get("hidden_act") == "gelu":
        notes.append("llama.cpp computes GELU by its tanh approximation: results differ in the third or fourth digit.")
    if any(re.fullmatch(PICTURES, name) for name in source.tensors):
        notes.append("the part of the model that sees pictures is left out.")
    return tuple(notes)


def _window(source: Checkpoint) -> int | None:
    """Return how many tokens the model looks back where that is less than its longest text."""
    config = source.config
    window = config.get("sliding_window")
    used = config.get("use_sliding_window", config.get("model_type") in ("mistral", "mixtral", "phi3"))
    return window if window and used and window < config["max_position_embeddings"] else None


def _decoder(source: Checkpoint, body: Body) -> dict[str, Any]:
    """Models with RMS norms, rotary embeddings and gated layers: what most families are."""
    config = source.config
    _check_activation(source, body)
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
        **rope_settings(source, body.architecture, head_dim),
    }
    if body.architecture in GEMMA_PATTERN:
        _check_gemma(source, body.architecture, head_dim)
        found |= {"window": config.get("sliding_window"), "softcap": config.get("final_logit_softcapping")}
        if body.architecture == "gemma2":
            found["attention_softcap"] = config.get("attn_logit_softcapping")
    if body.architecture == "smollm3":
        _check_smollm3(source)
    if any("*" in name for name in body.layer.values()):
        found |= _experts(source, body)
    return found


def _check_activation(source: Checkpoint, body: Body) -> None:
    gemma = body.architecture in GEMMA
    given = (source.config.get("hidden_activation") if gemma else None) or source.config.get("hidden_act")
    if body.architecture == "gemma" and given == "gelu":
        return
    if given not in (None, *(TANH if gemma else ("silu", "swish"))):
        raise VocabTransferError(f"{source.name} has the activation {given!r}, which GGUF cannot say.")


def _check_gemma(source: Checkpoint, architecture: str, head_dim: int) -> None:
    config, pattern = source.config, GEMMA_PATTERN[architecture]
    layers = config["num_hidden_layers"]
    kinds = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]
    if config.get("layer_types", kinds) != kinds or config.get("sliding_window_pattern", pattern) != pattern:
        raise VocabTransferError(f"{source.name} has other layers with a sliding window than llama.cpp gives Gemma.")
    scale = head_dim
    if architecture == "gemma2" and layers == GEMMA2_27B_LAYERS:
        scale = config["hidden_size"] // config["num_attention_heads"]
    if config.get("query_pre_attn_scalar", 256) != scale:
        raise VocabTransferError(f"{source.name} scales attention in a way that llama.cpp does not.")
    if architecture == "gemma3" and config.get("attn_logit_softcapping"):
        raise VocabTransferError(f"{source.name} caps attention in a way that llama.cpp does not.")
    if config.get("use_bidirectional_attention"):
        raise VocabTransferError(f"{source.name} attends in both directions, which is not written as GGUF yet.")


def _check_smollm3(source: Checkpoint) -> None:
    rotated = [int((i + 1) % SMOLLM3_PATTERN > 0) for i in range(source.config["num_hidden_layers"])]
    if source.config.get("no_rope_layers", rotated) != rotated:
        raise VocabTransferError(f"{source.name} rotates other layers than llama.cpp does in SmolLM3.")


def _experts(source: Checkpoint, body: Body) -> dict[str, Any]:
    """Read the sizes of mixtures of experts; llama.cpp has experts in every layer of these."""
    config = source.config
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise VocabTransferError(f"{source.name} has layers without experts, which llama.cpp does not have here.")
    normalised = body.architecture != "qwen2moe"
    if bool(config.get("norm_topk_prob", normalised)) != normalised:
        raise VocabTransferError(f"{source.name} weighs its experts in a way that llama.cpp does not.")
    return {
        "experts": config.get("num_experts") or config["num_local_experts"],
        "experts_used": config["num_experts_per_tok"],
        "expert_inner": config.get("moe_intermediate_size"),
        "shared_inner": config.get("shared_expert_intermediate_size"),
    }


def _gpt2(source: Checkpoint, body: Body) -> dict[str, Any]:
    config = source.config
    if config.get("activation_function", "gelu_new") not in TANH:
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


def _plain(source: Checkpoint, activations: tuple[str, ...]) -> dict[str, Any]:
    """Read the sizes of models with ordinary layer norms."""
    config = source.config
    if config.get("hidden_act", activations[0]) not in activations:
        raise VocabTransferError(f"{source.name} has the activation {config['hidden_act']!r}, which GGUF cannot say.")
    return {
        "context": config["max_position_embeddings"],
        "hidden": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "inner": config["intermediate_size"],
        "heads": config["num_attention_heads"],
        "epsilon": float(config.get("layer_norm_eps", 1e-5)),
    }


def _gpt_neox(source: Checkpoint, body: Body) -> dict[str, Any]:
    found = _plain(source, ("gelu", *TANH))
    rope = rope_settings(source, body.architecture, found["hidden"] // found["heads"])
    return found | rope | {"parallel": bool(source.config.get("use_parallel_residual", True))}


def _phi2(source: Checkpoint, body: Body) -> dict[str, Any]:
    if source.config.get("qk_layernorm"):
        raise VocabTransferError(f"{source.name} has norms of queries and keys, which llama.cpp does not have here.")
    found = _plain(source, TANH)
    found["kv_heads"] = source.config.get("num_key_value_heads") or found["heads"]
    return found | rope_settings(source, body.architecture, found["hidden"] // found["heads"])


def _bert(source: Checkpoint, body: Body) -> dict[str, Any]:
    if source.config.get("position_embedding_type", "absolute") != "absolute":
        raise VocabTransferError(f"{source.name} has relative positions, which llama.cpp's BERT does not have.")
    found = _plain(source, ("gelu", *TANH))
    found["context"] -= first_position(source)
    return found | {"causal": False, "token_types": source.config.get("type_vocab_size", 2)}


def pooling_setting(source: Checkpoint, body: Body, pooling: str | None) -> dict[str, int]:
    """Return how the states of a text become one vector: as its modules say, by default the mean for an encoder."""
    mode = "mean" if pooling is None and body.encoder else pooling
    if mode is None:
        return {}
    if mode not in POOLING:
        raise VocabTransferError(
            f"{source.name} makes its vectors by {mode!r}, and llama.cpp has only {', '.join(POOLING)}."
        )
    return {"pooling": POOLING[mode]}


def add_settings(writer: Any, found: Mapping[str, Any]) -> None:
    """Put the settings into a `gguf.GGUFWriter`."""
    import gguf

    adders: Mapping[str, Callable[[Any], None]] = {
        "context": writer.add_context_length,
        "hidden": writer.add_embedding_length,
        "layers": writer.add_block_count,
        "inner": writer.add_feed_forward_length,
        "heads": writer.add_head_count,
        "kv_heads": writer.add_head_count_kv,
        "theta": writer.add_rope_freq_base,
        "rotated": writer.add_rope_dimension_count,
        "rms_epsilon": writer.add_layer_norm_rms_eps,
        "epsilon": writer.add_layer_norm_eps,
        "window": writer.add_sliding_window,
        "softcap": writer.add_final_logit_softcapping,
        "attention_softcap": writer.add_attn_logit_softcapping,
        "rope_factor": writer.add_rope_scaling_factor,
        "rope_original": writer.add_rope_scaling_orig_ctx_len,
        "rope_attention": writer.add_rope_scaling_attn_factors,
        "rope_kind": lambda kind: writer.add_rope_scaling_type(gguf.RopeScalingType(kind)),
        "experts": writer.add_expert_count,
        "experts_used": writer.add_expert_used_count,
        "expert_inner": writer.add_expert_feed_forward_length,
        "shared_inner": writer.add_expert_shared_feed_forward_length,
        "parallel": writer.add_parallel_residual,
        "causal": writer.add_causal_attention,
        "token_types": writer.add_token_type_count,
        "pooling": lambda number: writer.add_pooling_type(gguf.PoolingType(number)),
    }
    for name, value in found.items():
        if name in adders and value is not None:
            adders[name](value)
    if "head_dim" in found:
        writer.add_key_length(found["head_dim"])
        writer.add_value_length(found["head_dim"])
