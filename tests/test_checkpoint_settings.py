"""config.json and generation_config.json: every id follows its token, or its role, or is reported."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.settings import NewSettings, renumber_settings
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.vocabulary import Vocabulary

CHAT = {
    **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    **{"turn_token": "<|eot|>", "image_token": "<image>", "start_token": "<start>"},
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def tokenizer(words: list[str], names: dict[str, str] = CHAT, seed: int = 0) -> PreTrainedTokenizerFast:
    made = toy_tokenizer(words, roles=names, seed=seed)
    return made


def renumber(
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    old: PreTrainedTokenizerFast,
    new: PreTrainedTokenizerFast,
    rows: int | None = None,
) -> NewSettings:
    return renumber_settings(
        config,
        generation,
        Vocabulary.from_tokenizer(old),
        new,
        source_name="old",
        old_rows=len(old) + 5,
        rows=len(new) if rows is None else rows,
    )


@pytest.fixture
def old() -> PreTrainedTokenizerFast:
    return tokenizer(["hello", " world"])


@pytest.fixture
def new() -> PreTrainedTokenizerFast:
    return tokenizer(["hello", "сәлам"], seed=4)


def test_single_ids_and_lists(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    ids = {name: old.convert_tokens_to_ids(token) for name, token in CHAT.items()}
    config = {**LLAMA, "vocab_size": len(old) + 5, "bos_token_id": ids["bos_token"], "eos_token_id": ids["eos_token"]}
    config["task_specific_params"] = {"chat": {"eos_token_id": ids["turn_token"], "max_length": 4}}
    generation = {"eos_token_id": [ids["eos_token"], ids["turn_token"]], "pad_token_id": 2, "bos_token_id": None}
    generation |= {"max_new_tokens": 2, "temperature": 0.5, "stop_token_ids": [ids["turn_token"]]}
    result = renumber(config, generation, old, new)
    at = new.convert_tokens_to_ids
    assert result.config["vocab_size"] == len(new)
    assert (result.config["bos_token_id"], result.config["eos_token_id"]) == (at("<s>"), at("</s>"))
    assert result.config["task_specific_params"] == {"chat": {"eos_token_id": at("<|eot|>"), "max_length": 4}}
    assert result.generation_config == {
        **{"eos_token_id": [at("</s>"), at("<|eot|>")], "pad_token_id": at("<pad>"), "bos_token_id": None},
        **{"max_new_tokens": 2, "temperature": 0.5, "stop_token_ids": [at("<|eot|>")]},
    }
    assert config["vocab_size"] == len(old) + 5, "the source's own config must stay as it was"


def test_id_zero_is_an_id(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    assert old.convert_tokens_to_ids("<s>") == 0
    result = renumber({**LLAMA, "bos_token_id": 0, "eos_token_id": 0}, {"eos_token_id": [0]}, old, new)
    assert result.config["eos_token_id"] == new.convert_tokens_to_ids("<s>") != 0
    assert result.generation_config == {"eos_token_id": [new.convert_tokens_to_ids("<s>")]}


def test_defaults_of_the_model_class_are_written_out(
    old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> None:
    """Llama's config.json may be silent about bos 1 and eos 2; those are the ids of other tokens now."""
    result = renumber(dict(LLAMA), None, old, new)
    assert result.config["bos_token_id"] == new.convert_tokens_to_ids(old.convert_ids_to_tokens(1))
    assert result.config["eos_token_id"] == new.convert_tokens_to_ids(old.convert_ids_to_tokens(2))


def test_role_when_the_string_is_gone(old: PreTrainedTokenizerFast) -> None:
    other = {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]"}
    new = tokenizer(["x"], other)
    config = {"model_type": "t5", "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 2, "mask_token_id": 5}
    result = renumber(config, {"eos_token_id": [1, 4]}, old, new)
    at = new.convert_tokens_to_ids
    assert result.config["eos_token_id"] == at("[EOS]")
    assert result.config["decoder_start_token_id"] == result.config["pad_token_id"] == at("[PAD]")
    assert result.generation_config == {"eos_token_id": [at("[EOS]")]}
    assert result.config["mask_token_id"] is None
    assert any("'mask_token_id' of config.json was '<image>' (id 5)" in note for note in result.notes)


def test_tokens_the_model_cannot_do_without(old: PreTrainedTokenizerFast) -> None:
    new = tokenizer(["x"], {"bos_token": "<s>"})
    with pytest.raises(
        VocabTransferError, match=r"no counterpart of '</s>' \(id 1\), which 'eos_token_id' of config.json"
    ):
        renumber({**LLAMA, "bos_token_id": 0, "eos_token_id": 1}, None, old, new)
    with pytest.raises(VocabTransferError, match="'<image>'"):
        renumber({**LLAMA, "bos_token_id": 0, "eos_token_id": 0, "image_token_index": 5}, None, old, new)


def test_ids_that_never_had_a_token(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    beyond = len(old) + 3
    config = {**LLAMA, "bos_token_id": beyond, "eos_token_id": 1, "pad_token_id": -1, "sep_token_id": 10**6}
    result = renumber(config, None, old, new)
    assert result.config["bos_token_id"] is None and result.config["sep_token_id"] is None
    assert result.config["pad_token_id"] == -1
    assert any(f"id {beyond}, which has no token" in note for note in result.notes)


def test_lists_of_text_tokens(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    hello, world = old.convert_tokens_to_ids(["hello", "Ġworld"])
    generation = {
        "suppress_tokens": [hello, world],
        "begin_suppress_tokens": [hello, 1],
        "forced_decoder_ids": [[1, 4], [2, 1]],
        "bad_words_ids": [[hello], [world, hello], [4]],
        "sequence_bias": [[[world], -2.0]],
    }
    result = renumber({**LLAMA, "bos_token_id": 0, "eos_token_id": 1}, generation, old, new)
    at = new.convert_tokens_to_ids
    made = result.generation_config
    assert made is not None
    assert made["suppress_tokens"] == [at("hello")]
    assert any("1 of 2 tokens in 'suppress_tokens'" in note for note in result.notes)
    assert made["begin_suppress_tokens"] == sorted([at("hello"), at("</s>")])
    assert made["forced_decoder_ids"] == [[1, at("<|eot|>")], [2, at("</s>")]]
    assert [new.decode(word) for word in made["bad_words_ids"]] == ["hello", " worldhello", "<|eot|>"]
    assert new.decode(made["sequence_bias"][0][0]) == " world" and made["sequence_bias"][0][1] == -2.0


def test_nested_sections(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    rows = len(old) + 5
    config = {
        "model_type": "something_new",
        "text_config": {"vocab_size": rows, "eos_token_id": 1},
        "vision_config": {"vocab_size": rows, "bos_token_id": 1},
        "qformer_config": {"vocab_size": 7, "pad_token_id": 1},
        "other_config": {"vocab_size": 9, "eos_token_id": 1},
        "decoder": {"vocab_size": rows, "decoder_start_token_id": 1},
        "tokenizer_class": "LlamaTokenizer",
        "_name_or_path": "/home/somebody",
        "auto_map": {"AutoTokenizer": "tokenization_x.X", "AutoModel": "modeling_x.X"},
    }
    made = renumber(config, None, old, new).config
    eos = new.convert_tokens_to_ids("</s>")
    assert made["text_config"] == {"vocab_size": len(new), "eos_token_id": eos}
    assert made["decoder"] == {"vocab_size": len(new), "decoder_start_token_id": eos}
    for untouched in ("vision_config", "qformer_config", "other_config"):
        assert made[untouched] == config[untouched]
    assert made["auto_map"] == {"AutoModel": "modeling_x.X"}
    assert not {"tokenizer_class", "_name_or_path"} & made.keys()


def test_a_size_that_was_left_to_the_default_is_written_out(
    old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> None:
    made = renumber({"model_type": "something_new", "text_config": {"hidden_size": 4}}, None, old, new).config
    assert made["text_config"]["vocab_size"] == len(new) and "vocab_size" not in made
    assert renumber({"model_type": "something_new"}, None, old, new).config["vocab_size"] == len(new)


def test_padding_is_recorded_and_suppressed(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    rows = len(new) + 3
    padding = list(range(len(new), rows))
    config = {**LLAMA, "bos_token_id": 0, "eos_token_id": 1}
    result = renumber(config, None, old, new, rows)
    assert result.config["vocabtransfer"]["padded_rows"] == 3 and result.config["vocabtransfer"]["vocabulary"] == len(
        new
    )
    assert result.generation_config is not None
    assert result.generation_config["suppress_tokens"] == padding
    assert result.generation_config["eos_token_id"] == new.convert_tokens_to_ids("</s>")
    result = renumber(config, {"suppress_tokens": [1]}, old, new, rows)
    assert result.generation_config == {"suppress_tokens": sorted([new.convert_tokens_to_ids("</s>"), *padding])}
    # A model that does not generate needs no list; without padding neither does one that does.
    assert (
        renumber({"model_type": "bert", "architectures": ["BertModel"]}, None, old, new, rows).generation_config is None
    )
    assert renumber(config, None, old, new).generation_config is None


def test_padding_id_that_positions_depend_on(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    config = {"model_type": "xlm-roberta", "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    with pytest.raises(VocabTransferError, match="must keep it at 2"):
        renumber(config, None, old, new)
    kept = toy_tokenizer(["x"], roles=CHAT, seed=3, fixed=3)
    assert renumber(config, None, old, kept).config["pad_token_id"] == 2
    # RoBERTa's default is 1, also when config.json does not say so.
    with pytest.raises(VocabTransferError, match="must keep it at 1"):
        renumber({"model_type": "roberta", "bos_token_id": 0, "eos_token_id": 1}, None, old, new)
