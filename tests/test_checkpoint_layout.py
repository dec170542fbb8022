"""Finding the vocabulary-shaped tensors by name, shape and content; refusing by name what is not understood."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vocabtransfer.checkpoint.layout import VocabLayout, find_layout
from vocabtransfer.checkpoint.tensors import read_weights
from vocabtransfer.errors import VocabTransferError

V, D = 101, 16
TABLE = torch.arange(V * D, dtype=torch.float32).reshape(V, D)
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": V, "hidden_size": D}


def layout(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> VocabLayout:
    save_file({name: value.clone() for name, value in tensors.items()}, folder / "model.safetensors")
    return find_layout(config, read_weights(folder).tensors)


def refusal(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    with pytest.raises(VocabTransferError) as caught:
        layout(folder, config, tensors)
    return str(caught.value)


def test_tied_head_that_is_also_on_disk(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE}
    found = layout(tmp_path, {**LLAMA, "tie_word_embeddings": True}, tensors)
    assert found.tied and found.output_name is None and found.input_name == "model.embed_tokens.weight"
    assert {(t.name, t.part) for t in found.tensors} == {
        ("model.embed_tokens.weight", "shared"),
        ("lm_head.weight", "shared"),
    }


def test_tied_head_with_other_values(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE + 1}
    assert "their values differ" in refusal(tmp_path, {**LLAMA, "tie_word_embeddings": True}, tensors)
    # In the T5 family the config always says tied, and the values decide (as transformers 5 has it).
    t5 = {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": V,
        "tie_word_embeddings": True,
    }
    found = layout(tmp_path, t5, {"shared.weight": TABLE, "lm_head.weight": TABLE + 1})
    assert not found.tied and (found.input_name, found.output_name) == ("shared.weight", "lm_head.weight")


def test_only_the_tied_head_is_on_disk(tmp_path: Path) -> None:
    found = layout(tmp_path, {**LLAMA, "tie_word_embeddings": True}, {"lm_head.weight": TABLE})
    assert found.tied and found.input_name == "lm_head.weight"


def test_missing_head(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": TABLE}
    assert "the weights have no head" in refusal(tmp_path, {**LLAMA, "tie_word_embeddings": False}, tensors)
    # The class's default (Llama: not tied) counts when the file is silent.
    assert "the weights have no head" in refusal(tmp_path, LLAMA, tensors)
    base = {**LLAMA, "tie_word_embeddings": False, "architectures": ["LlamaModel"]}
    assert layout(tmp_path, base, {"embed_tokens.weight": TABLE}).tied


def test_encoder_decoder_duplicates(tmp_path: Path) -> None:
    config = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "vocab_size": V}
    tensors = {
        "model.shared.weight": TABLE,
        "model.encoder.embed_tokens.weight": TABLE,
        "model.decoder.embed_tokens.weight": TABLE,
        "lm_head.weight": TABLE,
        "final_logits_bias": torch.zeros(1, V),
    }
    found = layout(tmp_path, config, tensors)
    assert found.tied and found.input_name == "model.shared.weight" and len(found.tensors) == 5
    assert [t.axis for t in found.tensors if t.part == "output_bias"] == [1]
    tensors["model.decoder.embed_tokens.weight"] = TABLE + 1
    assert "different embedding tables" in refusal(tmp_path, config, tensors)


def test_two_vocabularies(tmp_path: Path) -> None:
    config = {"model_type": "marian", "architectures": ["MarianMTModel"], "vocab_size": V}
    tensors = {"model.encoder.embed_tokens.weight": TABLE, "model.decoder.embed_tokens.weight": TABLE[:50]}
    message = refusal(tmp_path, config, tensors)
    assert "two vocabularies" in message and "'model.encoder.embed_tokens.weight'" in message


def test_mlm_biases(tmp_path: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": V}
    tensors = {
        "bert.embeddings.word_embeddings.weight": TABLE,
        "cls.predictions.decoder.weight": TABLE,
        "cls.predictions.decoder.bias": torch.zeros(V),
        "cls.predictions.bias": torch.zeros(V),
    }
    found = layout(tmp_path, config, tensors)
    assert {t.name for t in found.tensors if t.part == "output_bias"} == {
        "cls.predictions.decoder.bias",
        "cls.predictions.bias",
    }


def test_nested_text_config_and_its_defaults(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "vocab_size": V}}
    found = layout(tmp_path, config, {"language_model.model.embed_tokens.weight": TABLE})
    assert found.tied and found.rows == V
    del config["text_config"]["vocab_size"]
    message = refusal(tmp_path, config, {"language_model.model.embed_tokens.weight": TABLE})
    assert "vocab_size 262208" in message and f"{V} rows" in message


def test_config_and_table_disagree(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, {**LLAMA, "vocab_size": 7, "tie_word_embeddings": True}, {"model.embed_tokens.weight": TABLE}
    )
    assert "vocab_size 7" in message and "'model.embed_tokens.weight' has 101 rows" in message


def test_unknown_model_type_is_read_from_its_tensors(tmp_path: Path) -> None:
    config = {"model_type": "something_new", "architectures": ["SomethingNew"]}
    assert layout(tmp_path, config, {"model.embed_tokens.weight": TABLE}).tied
    found = layout(tmp_path, config, {"model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE + 1})
    assert not found.tied and found.rows == V


def test_no_table(tmp_path: Path) -> None:
    assert "no embedding table" in refusal(
        tmp_path, {**LLAMA, "tie_word_embeddings": True}, {"model.norm.weight": TABLE}
    )


EXTRA = {
    "mtp": ("model.layers.61.nextn.weight", torch.zeros(V, D), "depends on the vocabulary"),
    "hashes": ("model.encoder_hash_tok_embedding.weight", torch.zeros(7, D), "hashes of token ids"),
    "medusa": ("medusa_head.0.1.weight", torch.zeros(V, D), "depends on the vocabulary"),
    "transposed": ("cls.predictions.dense.weight", torch.zeros(D, V), "depends on the vocabulary"),
    "per layer": ("model.embed_tokens_per_layer.weight", torch.zeros(V + 1, D), "per-layer embeddings"),
    "integers": ("model.layers.0.ffn.gate.tid2eid", torch.zeros(V, 2), "depends on the vocabulary"),
    "gptq head": ("lm_head.qweight", torch.zeros(2, D, dtype=torch.int32), "quantised table"),
    **{
        f"{kind} {table}": (f"{name}.{field}", torch.zeros(2, dtype=torch.int32), "quantised table")
        for table, name in (("table", "model.embed_tokens"), ("head", "lm_head"))
        for kind, field in (
            *(("gptq", "qzeros"), ("awq", "scales"), ("8 bits", "SCB"), ("4 bits", "weight.absmax")),
            *(("nf4", "weight.quant_state.bitsandbytes__nf4"), ("compressed", "weight_packed"), ("hqq", "W_q")),
            *(("fp8", "weight_scale_inv"), ("aqlm", "codes")),
        )
    },
    "scaled table": ("model.embed_tokens.weight_scale", torch.zeros(V), "quantised table"),
}


@pytest.mark.parametrize("name", EXTRA)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    tensor, values, message = EXTRA[name]
    text = refusal(
        tmp_path, {**LLAMA, "tie_word_embeddings": True}, {"model.embed_tokens.weight": TABLE, tensor: values}
    )
    assert repr(tensor) in text and message in text


def test_quantised_table(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": TABLE.to(torch.int8)}
    message = refusal(tmp_path, {**LLAMA, "tie_word_embeddings": True}, tensors)
    assert "'model.embed_tokens.weight' is quantised (I8)" in message


def test_a_width_that_equals_the_vocabulary(tmp_path: Path) -> None:
    config = {**LLAMA, "tie_word_embeddings": True, "intermediate_size": V}
    tensors = {"model.embed_tokens.weight": TABLE, "model.layers.0.mlp.up_proj.weight": torch.zeros(V, D)}
    assert len(layout(tmp_path, config, tensors).tensors) == 1
    assert "up_proj" in refusal(tmp_path, {**config, "intermediate_size": 3}, tensors)
    tensors["second_head.weight"] = torch.zeros(V, D)
    assert "'second_head.weight'" in refusal(tmp_path, config, tensors)


def test_a_quantised_head_is_named_though_its_shape_is_packed(tmp_path: Path) -> None:
    """bitsandbytes in 4 bits: the head's weight is a column of bytes."""
    tensors = {"model.embed_tokens.weight": TABLE, "lm_head.weight": torch.zeros(V * D // 2, 1, dtype=torch.uint8)}
    message = refusal(tmp_path, {**LLAMA, "tie_word_embeddings": False}, tensors)
    assert "'lm_head.weight' is quantised (U8)" in message


@pytest.mark.parametrize("tied", [True, False])
def test_copies_in_prediction_layers_follow_their_originals(tied: bool, tmp_path: Path) -> None:
    """DeepSeek V3 and GLM 4.5: table and head once more in a layer that transformers does not load."""
    copies = {"model.layers.61.embed_tokens.weight": TABLE, "model.layers.61.shared_head.head.weight": TABLE + 1}
    own = {"model.embed_tokens.weight": TABLE} | ({} if tied else {"lm_head.weight": TABLE + 1})
    found = layout(tmp_path, {**LLAMA, "tie_word_embeddings": tied}, {**own, **copies})
    parts = {tensor.name: (tensor.part, tensor.further) for tensor in found.tensors}
    assert parts["model.layers.61.embed_tokens.weight"] == ("shared" if tied else "input", False)
    # The head of a tied model is the table, so a head of other values is one of its own.
    assert parts["model.layers.61.shared_head.head.weight"] == ("output", tied)
    assert found.tied == tied and found.output_name == (None if tied else "lm_head.weight")
    assert [tensor.name for tensor in found.further] == (["model.layers.61.shared_head.head.weight"] if tied else [])


def test_an_encoder_and_a_decoder_with_tables_of_their_own(tmp_path: Path) -> None:
    config = {"model_type": "t5gemma", "architectures": ["T5GemmaForConditionalGeneration"], "vocab_size": V}
    names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    found = layout(tmp_path, {**config, "tie_word_embeddings": True}, {names[0]: TABLE, names[1]: TABLE + 1})
    assert found.input_name == names[1] and found.tied
    assert [(tensor.name, tensor.part) for tensor in found.further] == [(names[0], "input")]
    two = {**config, "src_vocab_size": V, "tgt_vocab_size": V}
    assert "a vocabulary each" in refusal(tmp_path, two, {names[0]: TABLE, names[1]: TABLE + 1})


def test_rows_past_the_vocabulary(tmp_path: Path) -> None:
    """Mllama: eight rows for pictures that the head and config.json do not count."""
    config = {**LLAMA, "vocab_size": V - 8, "tie_word_embeddings": False}
    found = layout(tmp_path, config, {"model.embed_tokens.weight": TABLE, "lm_head.weight": TABLE[: V - 8]})
    assert (found.rows, found.vocabulary_rows, found.input.spare) == (V, V - 8, 8)
    assert next(tensor.spare for tensor in found.tensors if tensor.name == "lm_head.weight") == 0


def test_tables_of_other_vocabularies_are_left_alone(tmp_path: Path) -> None:
    """The Q-Former of InstructBLIP, a protein encoder, the units of a speech decoder: none is the tokenizer's."""
    tensors = {"language_model.model.embed_tokens.weight": TABLE}
    for name in (
        *("qformer.embeddings.word_embeddings.weight", "model.protein_encoder.model.embeddings.word_embeddings.weight"),
        *("t2u_model.model.decoder.embed_tokens.weight", "audio_tower.embed_tokens.weight"),
    ):
        tensors[name] = TABLE[:33]
    found = layout(tmp_path, {**LLAMA, "tie_word_embeddings": True}, tensors)
    assert [tensor.name for tensor in found.tensors] == ["language_model.model.embed_tokens.weight"]
