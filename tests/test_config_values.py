"""Settings with values that no model can have are refused on reading, by file, key and value."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from vocabtransfer.checkpoint.config_values import check_config, check_generation_config
from vocabtransfer.errors import VocabTransferError

FILE = Path("config.json")
GOOD = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "eos_token_id": [1, 2]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("eos_token_id", value) for value in ("abc", True, 1.5, ["1"], [[1]])),
        *(("architectures", value) for value in ([None], "LlamaForCausalLM", [""], {})),
        *(("head_dim", value) for value in (-5, 0, "8", False)),
        *(("hidden_act", value) for value in ("nope", 3)),
        *(("dtype", value) for value in (["float32"], "float31", "nn", 32)),
        *(("text_config", value) for value in ({"head_dim": -5}, {"pad_token_id": "x"}, {"vocab_size": [3, -1]})),
        ("model_type", 3),
    ],
)
def test_impossible_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(VocabTransferError, match=r"config\.json: '") as caught:
        check_config({**GOOD, key: value}, FILE)
    assert "\n" not in str(caught.value) and key in str(caught.value)


@pytest.mark.parametrize("value", ["abc", True, [None]])
def test_generation_settings_are_looked_at_too(value: Any) -> None:
    with pytest.raises(VocabTransferError, match="eos_token_id"):
        check_generation_config({"eos_token_id": value}, Path("generation_config.json"))
    for wrong in (
        {"temperature": "abc"},
        {"top_k": 1.5},
        {"do_sample": 1},
        {"bad_words_ids": [3]},
        {"suppress_tokens": "x"},
    ):
        with pytest.raises(VocabTransferError, match=next(iter(wrong))):
            check_generation_config(wrong, Path("generation_config.json"))
    check_generation_config({"eos_token_id": [1], "pad_token_id": None, "lang_to_id": {"a": 1}}, FILE)


@given(st.dictionaries(st.sampled_from([*GOOD, "text_config", "dtype", "head_dim"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(GOOD)), inner, max_size=3),
)))  # fmt: skip
def test_nothing_foreign_is_raised(values: dict[str, Any]) -> None:
    try:
        check_config(values, FILE)
    except VocabTransferError as refusal:
        assert str(refusal).startswith("config.json: ")


@pytest.mark.parametrize(
    "family", ["llama", "gemma3", "gemma3n", "t5", "bart", "whisper", "qwen3_5", "llama4", "clip", "mamba"]
)
def test_what_transformers_writes_is_accepted(family: str) -> None:
    check_config(json.loads(CONFIG_MAPPING[family]().to_json_string(use_diff=False)), FILE)


def test_what_a_familys_own_class_has_is_no_mistake() -> None:
    """Music Flamingo gives a length as 1200.0."""
    check_config({**GOOD, "max_position_embeddings": 1200.0}, FILE)
    with pytest.raises(VocabTransferError, match="max_position_embeddings"):
        check_config({**GOOD, "max_position_embeddings": 1200.5}, FILE)
