"""A tiny random model of any family that transformers has."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto

from vocabtransfer.checkpoint.synthetic import ROLES, toy_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer

#: Which class a family is made as: the first of these mappings that has it.
MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
)
#: Families that have a causal class in the library's tables but live as something else.
PREFERRED = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    **dict.fromkeys(("big_bird", "megatron-bert", "rembert", "roformer"), "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    **dict.fromkeys(("ernie", "xlm-roberta-xl", "xmod", "data2vec-text"), "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    **dict.fromkeys(("roc_bert", "roberta-prelayernorm", "xlm"), "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    **dict.fromkeys(("bart", "mbart", "marian", "pegasus", "mvp"), "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    **dict.fromkeys(("blenderbot", "blenderbot-small", "plbart"), "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    **dict.fromkeys(("prophetnet", "bigbird_pegasus"), "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "whisper": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
}
#: What the library's tables name wrongly, or not at all.
CLASSES = {"shieldgemma2": "ShieldGemma2ForImageClassification"}
WORDS = ["hello", " world", " the", "сәлам"]
NEW_WORDS = ["сәлам", " дөнья", " the", "китап", "hello", " wereld"]
ALL_ROLES = {**ROLES, "cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<mask>"}
#: Rows that no other size of a tiny model equals.
EXTRA = ["<image>", "<video>", "<audio>", "<turn>"]
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, POSITIONS = 32, 2, 4, 2, 8, 48, 512

_RULES: tuple[tuple[str, int], ...] = (
    (r"n_group|topk_group|n_groups_per_token", 1),
    (r"d_head|mamba_d_head|mamba_head_dim|index_head_dim", HEAD_DIM),
    (r"mamba_n(um)?_heads|mamba_n_heads", 2 * HIDDEN // HEAD_DIM),
    (r"(mamba_)?n_groups|mamba_n_groups", 2),
    (r"qk_head_dim", 2 * HEAD_DIM),
    (r"entity_vocab_size|encoder_hash_byte_group_vocab", 64),
    (r"(num_)?(key_value|kv)_heads|num_key_value_heads|n_head_kv|num_kv_heads|multi_query_group_num", KV_HEADS),
    (r".*(num_)?(attention_)?heads?|.*num_heads|n_heads?|.*_heads", HEADS),
    (r".*num_(hidden_)?layers|.*_layers|n_layers?|num_blocks|depth|.*num_.*blocks|num_hidden_groups", LAYERS),
    (r"(attention_)?head_dim|.*_head_dim|d_kv|kv_channels|attention_head_size|global_head_dim|head_size", HEAD_DIM),
    (r"qk_(nope|rope)_head_dim|v_head_dim", HEAD_DIM),
    (r"rotary_dim", 4),
    (r"(q|kv|o)_lora_rank|.*lora.*rank|.*_rank", 16),
    (r".*intermediate.*size|.*ffn_dim|d_ff|n_inner|ffn_hidden_size|.*mlp_dim|ffn_dim|hidden_dim|.*_hidden_dim", FFN),
    (r"hidden_size_per_layer_input", 8),
    (r".*num_.*experts.*per_tok|.*top_?k.*|num_experts_per_token|moe_topk|moe_k", 2),
    (r".*num_.*experts|.*n_routed_experts|num_experts|moe_num_experts", 4),
    (r"n_group|topk_group|n_shared_experts|num_expert_group", 1),
    (r"state_size|ssm_state_size|.*d_state|mamba_d_state", 8),
    (
        r"max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length|max_source_positions|max_target_positions",
        POSITIONS,
    ),
    (r"image_size|.*_image_size", 32),
    (r"patch_size", 8),
    (
        r"hidden_size|.*_hidden_size|d_model|n_embd|dim|embed_dim|.*embed_dim|hidden_channels|embedding_size|width",
        HIDDEN,
    ),
    (r".*proj.*_dim|.*projection.*_size|.*_dim", HIDDEN),
    (r"num_mel_bins", 16),
    (r"sliding_window|attention_window|local_window.*", 16),
)
_RULE_LIST = tuple((re.compile(pattern), value) for pattern, value in _RULES)
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
VOCABULARY_KEYS = (
    *("vocab_size", "decoder_vocab_size", "vocab_size_per_layer_input", "n_vocab", "text_vocab_size"),
    *("unpadded_vocab_size", "src_vocab_size", "tgt_vocab_size"),
)
#: What the general rules get wrong, by family: values of config.json, nested with dots.
OVERRIDES: dict[str, dict[str, Any]] = {
    **{
        family: {"text_config.rope_parameters": ROPE}
        for family in (
            *("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni_thinker", "glm4v", "glm46v", "glm_ocr", "glmga"),
            *("paddleocr_vl", "hunyuan_vl"),
        )
    },
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "falcon_h1": {"mamba_d_ssm": 64},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2, "expert_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4},
    "gemma3n_text": {  # tokens of pictures and sounds have no rows for every layer: four rows fewer
        **{"vocab_size_per_layer_input": -4, "num_kv_shared_layers": 0},
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "esmc": {"num_key_value_heads": 4},
    "fun_asr_nano": {"adaptor_config.intermediate_size": 8},
    "glm5_next": {"text_config.index_topk": 16},
    "chameleon": {"vocabulary_map": {"<image>": 8}},
    "emu3": {"vocabulary_map": {"<image>": 8, "<|extra_200|>": 9}},
    "step3p7": {"text_config.sliding_window": 16},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": FFN},
    "deepseek_v32": {"n_group": 1, "topk_group": 1},
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "dia": {"decoder_config.vocab_size": 12},  # of sounds: another number of rows
    "glm4v_moe": {"text_config.rope_parameters": {**ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}},
    "molmo2": {"adapter_config.vision_feature_layer": [1, 0]},
    "xlstm": {"qk_dim_factor": 0.5, "v_dim_factor": 1.0},
    "esm": {"vocab_size": 0},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "xmod": {"default_language": "en_XX"},
    "mobilebert": {"embedding_size": 24, "true_hidden_size": 32, "intra_bottleneck_size": 32},
}
OTHER_VOCABULARIES = re.compile(
    r"(projector|qformer|audio|codec|vq|image|speech|vision|codebook|depth|mimi|acoustic|t2u|vocoder).*"
)


def families() -> list[str]:
    """Return every model type with a vocabulary that transformers can make a model of."""
    found: dict[str, None] = {}
    for mapping in MAPPINGS[:-2]:
        found |= dict.fromkeys(getattr(modeling_auto, mapping, {}))
    found |= dict.fromkeys(["clip", "siglip", "siglip2", "clip_text_model", "clap", "altclip", "t5gemma2"])
    return sorted(name for name in found if name in CONFIG_MAPPING)


def class_name(family: str) -> str:
    """Return the class that a family is made as."""
    if family in CLASSES:
        return CLASSES[family]
    wanted = [PREFERRED[family]] if family in PREFERRED else []
    if "text_config" in getattr(CONFIG_MAPPING[family], "sub_configs", {}):
        wanted.append("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES")  # a causal class takes the part for text alone
    for mapping in (*wanted, *MAPPINGS):
        name = getattr(modeling_auto, mapping, {}).get(family)
        if name:
            return str(name if isinstance(name, str) else name[0])
    raise LookupError(family)


def tokenizers() -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """Return the old and the new tokenizer: the specials keep their ids, all else moves, two words are new."""
    roles = {**ALL_ROLES, **{f"{name[1:-1]}_marker": name for name in EXTRA}}
    fixed = len(set(roles.values()))
    made = []
    for words, seed in ((WORDS, 0), (NEW_WORDS, 5)):
        plain = toy_tokenizer(words, roles=roles, seed=seed, fixed=fixed)
        made.append(
            PreTrainedTokenizerFast(
                tokenizer_object=plain.backend_tokenizer,
                clean_up_tokenization_spaces=False,
                additional_special_tokens=EXTRA,
                **ALL_ROLES,
            )
        )
    return made[0], made[1]


def shrunk(values: Mapping[str, Any], rows: int, ids: Mapping[str, int], inside: str = "") -> dict[str, Any]:
    """Return a config with every size small; vocabularies of text get ``rows``, roles their ids."""
    if not all(isinstance(key, str) for key in values):  # a table by number
        return dict(values)
    small: dict[str, Any] = {}
    layers = {value for key, value in values.items() if type(value) is int and _small(key, value) == LAYERS != value}
    attends_low_rank = values.get("kv_lora_rank") is not None
    for key, value in values.items():
        if key in ("per_layer_config", "mrope_section", "num_key_value_heads") and _special(key, value, small):
            continue
        if isinstance(value, Mapping):
            small[key] = shrunk(value, rows, ids, key) if key not in ("id2label", "label2id") else dict(value)
        elif isinstance(value, list) and len(value) in layers and len(value) > LAYERS:
            small[key] = _two_kinds(value)
        elif key in VOCABULARY_KEYS:
            small[key] = value if value is None else 64 if OTHER_VOCABULARIES.match(inside) else rows
        elif re.search(r"_token_(id|index)$", key):
            small[key] = None if value is None else _id(key, ids)
        elif type(value) is int:
            small[key] = _small(key, value)
        else:
            small[key] = value
    if attends_low_rank and small.get("num_key_value_heads"):
        small["num_key_value_heads"] = HEADS  # every head has keys of its own
    if "head_dim" in small and small["head_dim"] is None and "hidden_size" in small:
        small["head_dim"] = HEAD_DIM
    return small


def _special(key: str, value: Any, small: dict[str, Any]) -> bool:
    """Set what no general rule can: settings by number of layer, splits of a head's width, heads left to be counted."""
    if key == "num_key_value_heads":
        if value is None:
            small[key] = HEADS
        return value is None
    small[key] = {} if key == "per_layer_config" else [2, 1, 1]
    return bool(value) or value == {}


def _id(key: str, ids: Mapping[str, int]) -> int:
    for name in ("bos", "eos", "pad", "unk", "cls", "sep", "mask", "image", "video", "audio"):
        if name in key:
            return ids[name]
    return ids["turn"]


def _small(key: str, value: int) -> int:
    for pattern, small in _RULE_LIST:
        if pattern.fullmatch(key) and value > 0:
            return min(value, small) if small in (KV_HEADS, 4, 1) else small
    return value


def _two_kinds(values: list[Any]) -> list[Any]:
    other = next((value for value in values if value != values[0]), values[-1])
    return [values[0], other]


def make(family: str, folder: Path, old: PreTrainedTokenizerFast) -> str:
    """Write a tiny random model of a family with the tokenizer; return its class. Anything may be raised."""
    ids = {name: old.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video", "audio", "turn", "cls", "sep")}
    ids |= {"mask": old.mask_token_id, "bos": old.bos_token_id, "eos": old.eos_token_id, "pad": old.pad_token_id}
    ids["unk"] = old.unk_token_id
    config_class = CONFIG_MAPPING[family]
    name = class_name(family)
    values = shrunk(config_class().to_dict(), len(old), ids)
    for key, value in OVERRIDES.get(family, {}).items():
        *parents, last = key.split(".")
        home = values
        for parent in parents:
            home = home[parent]
        home[last] = len(old) + value if last.startswith("vocab_size") and value is not None else value
    for key in ("model_type", "transformers_version", "architectures", "_name_or_path"):
        values.pop(key, None)
    config = config_class.from_dict(copy.deepcopy(values))
    if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = ids["pad"]  # every published model says where its decoder starts
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1 and value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator) * 0.02)
            elif value.is_floating_point() and float(value.std()) < 1e-3:
                value.normal_(std=0.02, generator=generator)
    model.save_pretrained(folder)
    save_tokenizer(old, folder)
    return name
