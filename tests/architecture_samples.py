"""A tiny random model of any family that transformers has, given a new vocabulary and looked at from all sides."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto

import vocabtransfer as vt
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.synthetic import ROLES, toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.proof import prove
from vocabtransfer.running.blank_inputs import blank_inputs
from vocabtransfer.surgery.transfer import TransferResult
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


@dataclass(frozen=True)
class Verdict:
    """What became of a family, and why.

    ``works``; ``built`` (files, loading and settings are right, but the tiny model does not run on text alone);
    ``refused``; ``wrong``; ``not made`` (this suite makes no tiny model of it).
    """

    family: str
    made_as: str
    state: str
    why: str = ""


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


def judge(family: str, folder: Path) -> Verdict:
    """Make a family's tiny model, build it with a new vocabulary, load the result as a stranger would, and look."""
    old, new = tokenizers()
    made_as = class_name(family)
    source, target = folder / "source", folder / "built"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            make(family, source, old)
        except Exception as problem:
            return Verdict(family, made_as, "not made", f"{type(problem).__name__}: {_first_line(problem)}")
        said = ""
        try:
            result = vt.transfer(open_checkpoint(source), new, method="pieces", calibrate=False)
            result.save(target, check=lambda place: prove(place, {}, find_language("tt"), tokens=2))
        except VocabTransferError as refusal:
            if refusal.__cause__ is None or not (said := _source_fails(source)):
                return Verdict(family, made_as, "refused", str(refusal).replace(str(source), family))
            result.save(target)
        except Exception as problem:
            return Verdict(family, made_as, "wrong", f"traceback, {type(problem).__name__}: {_first_line(problem)}")
        try:
            _load(source, made_as)
        except Exception as problem:
            return Verdict(family, made_as, "not made", f"the tiny source does not load back ({_first_line(problem)})")
        try:
            faults = list(_faults(source, target, made_as, result))
        except NotRun as reason:
            if "Error" in said and any(mark in said for mark in DOES_NOT_RUN):
                return Verdict(family, made_as, "not made", f"the tiny source does not run either ({reason})")
            return Verdict(family, made_as, "built", str(reason))
        except Exception as problem:
            return Verdict(family, made_as, "wrong", f"traceback, {type(problem).__name__}: {_first_line(problem)}")
    if faults:
        return Verdict(family, made_as, "wrong", "; ".join(faults))
    note = f"it does not generate from made-up input, neither before nor after ({said})" if said else ""
    return Verdict(family, made_as, "works", note)


#: Errors of a tiny model whose sizes do not go together, unlike those of one that wants more input.
DOES_NOT_RUN = ("size", "shape", "out of", "split", "dimension", "Could not find", "get_seq_length")


class NotRun(Exception):
    """The source's tiny model itself does not run on text alone."""


def _source_fails(source: Path) -> str:
    """Return how the untouched tiny model fails the same proof; "" when it does not."""
    try:
        prove(source, {}, find_language("tt"), tokens=2)
    except Exception as problem:
        cause = problem.__cause__ or problem
        return f"{type(cause).__name__}: {_first_line(cause)}"
    return ""


def _faults(source: Path, target: Path, made_as: str, result: TransferResult) -> Iterator[str]:
    old, new = result.source.tokenizer, result.tokenizer
    loaded = [_load(folder, made_as) for folder in (source, target)]
    (before, before_info), (after, after_info) = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if sorted(map(str, before_info[kind])) != sorted(map(str, after_info[kind])):
            yield f"{kind}: {sorted(map(str, after_info[kind]))[:2]}"
    yield from _config_faults(source, target, old, new)
    first, second = before.state_dict(), after.state_dict()
    mapped = {_tail(tensor.name) for tensor in result.source.layout.tensors}
    if first.keys() != second.keys():
        yield f"parameters differ: {sorted(first.keys() ^ second.keys())[:2]}"
    for name in first.keys() & second.keys():
        if first[name].dtype != second[name].dtype:
            yield f"{name} is {second[name].dtype}"
        if first[name].shape == second[name].shape and not torch.equal(first[name], second[name]):
            if not any(_tail(name).endswith(end) or end.endswith(_tail(name)) for end in mapped):
                yield f"{name} changed"
        elif len(old) in first[name].shape[:1] and first[name].shape == second[name].shape:
            yield f"{name} still has {len(old)} rows"
    pairs = [_ends(model) for model in (before, after)]
    tied = [
        one is not None and two is not None and one.weight.data_ptr() == two.weight.data_ptr() for one, two in pairs
    ]
    if tied[0] != tied[1]:
        yield f"tied {tied[0]} before, {tied[1]} after"
    if pairs[1][0] is not None and pairs[1][0].weight.shape[0] != len(new) + result.source.layout.input.spare:
        yield f"{pairs[1][0].weight.shape[0]} rows for {len(new)} tokens"
    yield from _numeric_faults(before, after, old, new)


def _ends(model: Any) -> tuple[Any, Any]:
    try:
        ends = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # models of two towers have no input table of their own
        return None, None
    first, last = (end if hasattr(end, "weight") else None for end in ends)  # Perceiver's are no tables
    return first, last


def _tail(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _load(folder: Path, made_as: str) -> tuple[Any, dict[str, Any]]:
    model, info = getattr(transformers, made_as).from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    return model.eval(), info


def _config_faults(
    source: Path, target: Path, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> Iterator[str]:
    for file in ("config.json", "generation_config.json"):
        if not (source / file).is_file():
            continue
        first = json.loads((source / file).read_text())
        second = json.loads((target / file).read_text())
        for path, value in _leaves(first):
            now = _at(second, path)
            where = ".".join(map(str, path))
            key = str(path[-1])
            inside = str(path[-2]) if len(path) > 1 else ""
            if "vocab_size" in key and value == len(old) and now != len(new) and not OTHER_VOCABULARIES.match(inside):
                yield f"{where} is {now}, not {len(new)}"
            if re.search(r"_token_(id|index)$", key) and type(value) is int and 0 <= value < len(old):
                wanted = new.convert_tokens_to_ids(old.convert_ids_to_tokens(value))
                if now != wanted:
                    yield f"{where} of {file} is {now}, not {wanted}"


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    elif path:
        yield path, value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _numeric_faults(
    before: Any, after: Any, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> Iterator[str]:
    """Text of tokens that both vocabularies have: hidden states bit for bit, logits at copied ids equal."""
    text = "hello the world, he said"
    strings = [token for token in old.tokenize(text) if token in new.get_vocab()][:12]
    shared = sorted(set(old.get_vocab()) & set(new.get_vocab()))
    ids = [torch.tensor([tokenizer.convert_tokens_to_ids(strings)]) for tokenizer in (old, new)]
    columns = [tokenizer.convert_tokens_to_ids(shared) for tokenizer in (old, new)]
    try:
        expected = _outputs(before, ids[0])
    except Exception as problem:
        raise NotRun(f"{type(problem).__name__}: {_first_line(problem)}") from None
    outputs = [expected, _outputs(after, ids[1])]
    if outputs[0].keys() != outputs[1].keys() or not outputs[0]:
        yield f"gives {sorted(outputs[0])} before and {sorted(outputs[1])} after"
        return
    for name, value in outputs[0].items():
        other = outputs[1][name]
        if value.shape[-1:] == (len(old),) and other.shape[-1:] == (len(new),):
            value, other = value[..., columns[0]], other[..., columns[1]]
            if not torch.allclose(value, other, rtol=1e-4, atol=1e-5, equal_nan=True):
                yield f"{name} at copied ids differ by {float((value - other).abs().max()):.2g}"
        elif value.shape != other.shape or not torch.equal(value.nan_to_num(), other.nan_to_num()):
            yield f"{name} differ"


def _outputs(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run a model on text alone, or else with whatever its class insists on made of zeros."""
    if type(model).__name__ in ("CLIPModel", "SiglipModel", "AltCLIPModel", "ClapModel", "Siglip2Model"):
        model = model.text_model
    first: Exception | None = None
    for options in _tries(model, ids):
        try:
            with torch.no_grad():
                return _floats(model(**options))
        except Exception as problem:
            first = first or problem
    assert first is not None
    raise first


def _tries(model: Any, ids: torch.Tensor) -> Iterator[dict[str, Any]]:
    takes, config = _parameters(model), model.config
    text: dict[str, Any] = {"input_ids": ids}
    if "kwargs" in takes or "output_hidden_states" in takes:
        text["output_hidden_states"] = True
    if getattr(config, "is_encoder_decoder", False) or "decoder_input_ids" in takes:
        text["decoder_input_ids"] = ids
    if model.main_input_name == "input_ids":
        yield text
    blank = blank_inputs(model) or {}
    writes = {"decoder_input_ids": ids} if "decoder_input_ids" in takes else {"input_ids": ids}
    yield {**blank, **writes, **({"output_hidden_states": True} if "output_hidden_states" in text else {})}
    more: dict[str, Any] = {}
    size = getattr(getattr(config, "vision_config", config), "image_size", None) or 32
    if "pixel_values" in takes:
        more["pixel_values"] = torch.zeros(1, 3, *(size if isinstance(size, list | tuple) else (size, size)))
    if "bbox" in takes:
        more["bbox"] = torch.zeros(1, ids.shape[1], 4, dtype=torch.long)
    if "flattened_patches" in takes:
        patch = getattr(config.vision_config, "patch_embed_hidden_size", 768)
        more["flattened_patches"] = torch.ones(1, 4, patch + 2)
    if "qformer_input_ids" in takes:
        more["qformer_input_ids"] = torch.ones(1, 2, dtype=torch.long)
    yield {**text, **more, **blank}
    yield {**blank, **more, **writes}


def _floats(output: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, value in output.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found[name] = value
        elif name.endswith("hidden_states") and isinstance(value, tuple) and isinstance(value[-1], torch.Tensor):
            found[f"{name}[-1]"] = value[-1]
    return found


def _parameters(model: Any) -> Mapping[str, Any]:
    import inspect

    return inspect.signature(model.forward).parameters


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [""])[0][:160]
