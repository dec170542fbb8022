"""config.json and generation_config.json from strangers: values of the right type and range, or refused by name.

A wrong value would otherwise surface as a foreign error from deep inside a model class, or not at all.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.errors import VocabTransferError

ID_ENDINGS = ("_token_id", "_token_ids", "_token_index")
#: Numbers that are above zero wherever they stand; some families give one for each layer.
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "max_position_embeddings", "d_model", "n_embd", "n_layer", "n_head"),
)
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
DTYPES = ("dtype", "torch_dtype")
#: What generation_config.json says of how tokens are chosen, by the type of the value.
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
COUNTS = (
    *("top_k", "max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "num_beam_groups"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "prompt_lookup_num_tokens"),
)
NUMBERS = (
    *("temperature", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "max_time"),
    *("encoder_repetition_penalty", "length_penalty", "diversity_penalty", "guidance_scale", "penalty_alpha"),
)
FLAGS = ("do_sample", "use_cache", "remove_invalid_values", "renormalize_logits", "output_scores", "output_attentions")
#: Parts that speak of other things than the model.
LEFT_ALONE = ("id2label", "label2id", "quantization_config", "auto_map", "task_specific_params")


def check_config(config: Mapping[str, Any], file: Path) -> None:
    """Refuse a config.json with values that no model can have.

    Looks at the classes, the dtype, sizes, token ids and activations, in nested parts too. Raises `VocabTransferError`
    naming the file, the key and the value.
    """
    named = config.get("architectures")
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) and name for name in named)):
        raise _wrong(file, "architectures", named, "a list of class names")
    if not isinstance(config.get("model_type", ""), str):
        raise _wrong(file, "model_type", config["model_type"], "a name")
    _check_part(config, file, "")


def check_generation_config(values: Mapping[str, Any], file: Path) -> None:
    """Refuse a generation_config.json with ids, counts, numbers or flags that are none; raises `VocabTransferError`."""
    for key, value in values.items():
        if value is None:
            continue
        if key.endswith(ID_ENDINGS) or key in ID_LISTS:
            _check_ids(file, key, value)
        elif key in COUNTS and (type(value) is not int or abs(value) >= 2**63):
            raise _wrong(file, key, value, "a whole number, or null")
        elif key in NUMBERS and not (type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e30):
            raise _wrong(file, key, value, "a number, or null")
        elif key in FLAGS and not isinstance(value, bool):
            raise _wrong(file, key, value, "true, false or null")
        elif key == "bad_words_ids" and not (isinstance(value, list) and all(map(_is_id_list, value))):
            raise _wrong(file, key, value, "a list of lists of token ids, or null")


def _check_part(part: Mapping[str, Any], file: Path, inside: str) -> None:
    for key, value in part.items():
        place = inside + key
        if isinstance(value, Mapping):
            if key not in LEFT_ALONE:
                _check_part(value, file, f"{place}.")
        elif key.endswith(ID_ENDINGS):
            _check_ids(file, place, value)
        elif key in SIZES and value is not None:
            sizes = value if isinstance(value, list) else [value]
            if not all(_is_size(size) for size in sizes) and not _is_default(part, key, value):
                raise _wrong(file, place, value, "a whole number above zero")
        elif key in DTYPES and value is not None:
            if not isinstance(value, str) or not _is_dtype(value):
                raise _wrong(file, place, value, "the name of a dtype, like bfloat16")
        elif key in ACTIVATIONS and value is not None and not _is_activation(value):
            raise _wrong(file, place, value, "an activation that transformers knows")


def _check_ids(file: Path, key: str, value: Any) -> None:
    if value is not None and not all(type(i) is int for i in (value if isinstance(value, list) else [value])):
        raise _wrong(file, key, value, "a token id, a list of them, or null")


def _is_id_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int and i >= 0 for i in value)


def _is_default(part: Mapping[str, Any], key: str, value: Any) -> bool:
    """Tell whether a number is what the family's own class has (GLM 5 leaves the width of a head at 0)."""
    from transformers import AutoConfig

    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        known = AutoConfig.for_model(str(part.get("model_type")))
    except Exception:  # a family that transformers does not know
        return False
    return type(getattr(known, key, None)) is type(value) and bool(getattr(known, key) == value)


def _is_size(value: Any) -> bool:
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())  # 1200.0 (Music Flamingo)
    return bool(whole and value > 0)


def _is_dtype(name: str) -> bool:
    return name == "auto" or isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)


def _is_activation(name: Any) -> bool:
    from transformers.activations import ACT2FN

    return isinstance(name, str) and (name in ACT2FN or name in ("swiglu", "glu", "geglu"))


def _wrong(file: Path, key: str, value: Any, wanted: str) -> VocabTransferError:
    said = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return VocabTransferError(f"{file}: {key!r} is {said}, but it should be {wanted}: correct the file.")
