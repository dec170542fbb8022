"""The body of a model as llama.cpp names it: tensor names, and what is done to the values.

One model type of transformers, one entry in `BODIES`. A tensor without a name is refused, because a file without it would
be another model. The settings are in `vocabtransfer.export.gguf_settings`. The names of what can be read too are those of
`vocabtransfer.checkpoint.gguf_model`, used the other way round.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.gguf_model import ARCHITECTURES, ENDS, GEMMA_NORMS, LAYER
from vocabtransfer.checkpoint.layout import model_config
from vocabtransfer.errors import VocabTransferError

ATTENTION = {name: LAYER[name] for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm")}
# A "*" stands for the number of an expert; the file has one tensor with all of them.
MIXTRAL_LAYER = ATTENTION | {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.*.w1",
    "ffn_down_exps": "block_sparse_moe.experts.*.w2",
    "ffn_up_exps": "block_sparse_moe.experts.*.w3",
}
QWEN_EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.*.gate_proj",
    "ffn_up_exps": "mlp.experts.*.up_proj",
    "ffn_down_exps": "mlp.experts.*.down_proj",
}
SHARED_EXPERT = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
OLMO2_LAYER = {name: new for name, new in LAYER.items() if name not in ("attn_norm", "ffn_norm")} | {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
PHI3_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
PHI2_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.dense",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
PHI2_ENDS = ENDS | {"output_norm": "model.final_layernorm"}
NEOX_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
NEOX_ENDS = {"token_embd": "embed_in", "output_norm": "final_layer_norm", "output": "embed_out"}
GPT2_LAYER = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
GPT2_ENDS = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}
BERT_LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
BERT_ENDS = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
# Heads for guessing hidden words, and the layer behind the first state: an embedding is made without them.
BERT_UNUSED = r"cls\.predictions\..+|cls\.seq_relationship\..+|lm_head\..+|(.+\.)?pooler\..+|.+\.position_ids"
# The text model of one that sees pictures, and the part that sees them.
INSIDE = re.compile(r"^(?:model\.language_model|language_model\.model)\.|^language_model\.(?=lm_head)")
PICTURES = r"(?:model\.)?(?:vision_tower|multi_modal_projector)\..+"
TEXT_PART = {"gemma3": "gemma3_text"}
BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Body:
    """How one transformers model type is named and laid out in the file."""

    architecture: str
    layer: Mapping[str, str]
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    pattern: str = r"(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)"
    unused: str = r"(?!)"  # tensors that the engine makes itself, or has no use for
    permuted: bool = False  # ggml rotates neighbouring values, transformers the two halves of a head
    norm_offset: float = 0.0  # what the file's norm weights have on top of the checkpoint's
    transposed: bool = False  # linear layers are stored as (inputs, outputs)
    by_head: bool = False  # query, key and value of one head lie together; in the file, all queries come first
    own_output: bool = False  # llama.cpp wants an output table even where it is the input table
    encoder: bool = False  # makes vectors of texts, and does not continue them


def _known(name: str, unused: str = r"(?!)") -> Body:
    known = ARCHITECTURES[name]
    return Body(name, known.layer, unused=unused, permuted=known.permuted, norm_offset=known.norm_offset)


def _bert(prefix: str) -> Body:
    pattern = rf"(?:{prefix}\.)?(?:encoder\.layer\.(\d+)\.)?(.+)\.(weight|bias)"
    return Body("bert", BERT_LAYER, BERT_ENDS, pattern, BERT_UNUSED, encoder=True)


BODIES: Mapping[str, Body] = {
    "llama": _known("llama"),
    "mistral": _known("llama"),
    "mixtral": Body("llama", MIXTRAL_LAYER, permuted=True),
    "smollm3": Body("smollm3", LAYER, permuted=True),
    "qwen2": _known("qwen2"),
    "qwen2_moe": Body("qwen2moe", ATTENTION | QWEN_EXPERTS | SHARED_EXPERT),
    "qwen3": _known("qwen3"),
    "qwen3_moe": Body("qwen3moe", ATTENTION | HEAD_NORMS | QWEN_EXPERTS),
    "gemma": Body("gemma", LAYER, norm_offset=1.0),
    "gemma2": Body("gemma2", LAYER | GEMMA_NORMS, norm_offset=1.0),
    "gemma3_text": _known("gemma3", PICTURES),
    "olmo2": Body("olmo2", OLMO2_LAYER | HEAD_NORMS, own_output=True),
    "phi3": Body("phi3", PHI3_LAYER),
    "phi": Body("phi2", PHI2_LAYER, PHI2_ENDS, own_output=True),
    "gpt_neox": Body(
        "gptneox",
        NEOX_LAYER,
        NEOX_ENDS,
        r"(?:gpt_neox\.)?(?:layers\.(\d+)\.)?(.+)\.(weight|bias)",
        r".+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        by_head=True,
        own_output=True,
    ),
    "gpt2": Body(
        "gpt2",
        GPT2_LAYER,
        GPT2_ENDS,
        r"(?:transformer\.)?(?:h\.(\d+)\.)?(.+)\.(weight|bias)",
        r".+\.attn\.(masked_)?bias",
        transposed=True,
    ),
    "bert": _bert("bert"),
    "roberta": _bert("roberta"),
    "xlm-roberta": _bert("roberta"),
}


def text_part(source: Checkpoint) -> Checkpoint:
    """Return a model with pictures as its text model alone, its settings written out; any other model as it is."""
    kind = str(source.config.get("model_type"))
    known = model_config(source.config) if kind in TEXT_PART else None
    if known is None:
        return source
    ids = {key: i for key, i in source.config.items() if key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = known.get_text_config().to_dict() | ids | {"model_type": TEXT_PART[kind]}
    return replace(source, config=text | {"architectures": source.config.get("architectures")})


def find_body(source: Checkpoint) -> Body:
    """Return the entry for the model; `VocabTransferError` for one that cannot be written, or not whole."""
    kind = str(source.config.get("model_type"))
    if kind not in BODIES:
        raise VocabTransferError(
            f"{source.name} has the architecture {kind!r}, and only {', '.join(BODIES)} can be written as GGUF."
        )
    if "Classification" in source.architecture:
        raise VocabTransferError(f"{source.name} is a {source.architecture}; GGUF is written of language models only.")
    if BODIES[kind].encoder and source.continues_text:
        raise VocabTransferError(f"{source.name} is a {source.architecture}; llama.cpp has {kind} as an encoder only.")
    return BODIES[kind]


def tensor_parts(source: Checkpoint, body: Body) -> dict[str, tuple[str, ...]]:
    """Return for each tensor of the file those of the checkpoint that it is made of: one, or the experts of a layer."""
    layer = {new: old for old, new in body.layer.items()}
    ends = {new: old for old, new in body.ends.items()}
    found: dict[str, dict[int, str]] = {}
    for name in source.tensors:
        bare = INSIDE.sub(lambda match: "" if match[0] == "language_model." else "model.", name)
        if (bare == "lm_head.weight" and source.layout.tied) or re.fullmatch(body.unused, name):
            continue
        match = re.fullmatch(body.pattern, bare)
        number, inner, kind = match.groups() if match else (None, bare, "")
        expert = re.search(r"\.experts\.(\d+)\.", f".{inner}")
        plain = inner if expert is None else re.sub(r"experts\.\d+\.", "experts.*.", inner)
        new = ends.get(plain) if number is None else layer.get(plain)
        if new is None:
            raise VocabTransferError(f"{source.name} has a tensor {name!r} that GGUF has no name for.")
        full = f"{new}.{kind}" if number is None else f"blk.{number}.{new}.{kind}"
        found.setdefault(full, {})[int(expert[1]) if expert else 0] = name
    for full, names in found.items():
        if sorted(names) != list(range(len(names))):
            raise VocabTransferError(f"{source.name} lacks some experts of {full!r}: it has {sorted(names)}.")
    parts = {full: tuple(names[i] for i in sorted(names)) for full, names in found.items()}
    if body.own_output and "output.weight" not in parts:
        parts["output.weight"] = (source.layout.input_name,)
    return parts


def shape_in_file(source: Checkpoint, body: Body, parts: tuple[str, ...]) -> tuple[int, ...]:
    """Return the shape that a tensor has in the file, rows first."""
    name = parts[0]
    shape = tuple(source.tensors[name].shape)
    if _is_transposed(body, name, shape):
        return shape[::-1]
    if body.encoder and name.endswith("position_embeddings.weight"):
        return shape[0] - first_position(source), shape[1]
    return shape if len(parts) == 1 else (len(parts), *shape)


def first_position(source: Checkpoint) -> int:
    """Return the row of the first token among the positions: RoBERTa's come after that of padding."""
    return 0 if source.config["model_type"] == "bert" else int(source.config.get("pad_token_id", 1)) + 1


def blocks_in_file(
    source: Checkpoint, body: Body, parts: tuple[str, ...], found: Mapping[str, Any]
) -> Iterator[torch.Tensor]:
    """Yield a tensor's values as the file has them, in blocks of rows and in the type that the checkpoint has."""
    for name in parts:
        yield from _blocks(source, body, name, found)


def _blocks(source: Checkpoint, body: Body, name: str, found: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    shape = tuple(source.tensors[name].shape)
    projection = re.search(r"\.self_attn\.([qk])_proj\.", name)
    if projection and body.permuted:
        heads = found["heads" if projection[1] == "q" else "kv_heads"]
        values = source.read(name)
        yield values.reshape(heads, 2, -1, *shape[1:]).transpose(1, 2).reshape(shape)
    elif body.by_head and ".query_key_value." in name:
        yield source.read(name).reshape(found["heads"], 3, -1, *shape[1:]).transpose(0, 1).reshape(shape)
    elif _is_transposed(body, name, shape):
        yield source.read(name).T.contiguous()
    elif body.norm_offset and name.endswith("norm.weight"):
        yield source.read(name).to(torch.float32) + body.norm_offset
    else:
        step = max(1, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])))
        first = first_position(source) if body.encoder and name.endswith("position_embeddings.weight") else 0
        for start in range(first, shape[0], step):
            yield source.read_rows(name, start, min(start + step, shape[0]))


def _is_transposed(body: Body, name: str, shape: tuple[int, ...]) -> bool:
    return body.transposed and len(shape) == 2 and re.search(r"\.c_(attn|proj|fc)\.", name) is not None
