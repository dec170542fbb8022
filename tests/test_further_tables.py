"""Second tables of one vocabulary: mapped as the first, copies as their originals, rows past the vocabulary as they are."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.synthetic import ROLES, toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.against_source import cannot_score_tables
from vocabtransfer.hydra import create_hydra
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.proof import prove
from vocabtransfer.surgery.tables import NewTables
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.tokenization.save import save_tokenizer

IMAGE = {**ROLES, "image": "<image>"}
OLD = toy_tokenizer(["hello", " world", " the"], roles=IMAGE)
NEW = toy_tokenizer(["сәлам", " the", "hello", " дөнья"], roles=IMAGE, seed=5, fixed=5)
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SIZES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 64},
}


def write(
    folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast = OLD, extra: dict[str, Any] | None = None
) -> Path:
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    if extra:
        save_file({**tensors, **extra}, folder / "model.safetensors", metadata={"format": "pt"})
    save_tokenizer(tokenizer, folder)
    return folder


def built(folder: Path, tokenizer: PreTrainedTokenizerFast = NEW, **options: Any) -> tuple[TransferResult, Any]:
    """Transfer, prove and save; return the result and the tensors written."""
    result = vt.transfer(open_checkpoint(folder), tokenizer, method="pieces", **options)
    target = folder.parent / "built"
    result.save(target, check=lambda place: prove(place, {}, find_language("tt"), tokens=2))
    return result, load_file(target / "model.safetensors")


def copied() -> list[tuple[int, int]]:
    """Return the ids of tokens that both vocabularies have."""
    return [(OLD.get_vocab()[token], i) for token, i in sorted(NEW.get_vocab().items()) if token in OLD.get_vocab()]


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=len(OLD), **SIZES, **IDS, **options))


@pytest.mark.parametrize("tied", [True, False])
def test_prediction_layers_follow_table_and_head_even_when_the_head_is_calibrated(tied: bool, tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=tied)
    table, head = model.get_input_embeddings().weight.detach().clone(), model.lm_head.weight.detach().clone()
    names = ("model.layers.2.embed_tokens.weight", "model.layers.2.shared_head.head.weight")
    folder = write(tmp_path / "source", model, extra={names[0]: table, names[1]: head})
    words = {"сәлам": 20.0, "дөнья": 9.0, "hello": 3.0}
    result, after = built(folder, evidence=vt.Evidence(words=words), calibrate=True)
    assert result.initialization.shift is not None and not result.source.layout.further
    own = "model.embed_tokens.weight" if tied else "lm_head.weight"
    assert torch.equal(after[names[0]], after["model.embed_tokens.weight"]) and torch.equal(after[names[1]], after[own])
    assert len(after[names[0]]) == len(NEW)


def test_rows_for_every_layer_of_gemma_3n(tmp_path: Path) -> None:
    """Tokens past the shorter table read its first row; in the new one each token has a row of its own."""
    torch.manual_seed(0)
    short = len(OLD) - 6
    model = hf.Gemma3nForCausalLM(
        hf.Gemma3nTextConfig(
            **{"vocab_size": len(OLD), "vocab_size_per_layer_input": short, "hidden_size_per_layer_input": 8},
            **{"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"], "head_dim": 8},
            **{"laurel_rank": 8, "activation_sparsity_pattern": [0.0, 0.0], **SIZES, **IDS},
        )
    )
    result, after = built(write(tmp_path / "source", model))
    name = "model.embed_tokens_per_layer.weight"
    before = load_file(tmp_path / "source" / "model.safetensors")[name]
    assert len(before) == short and len(after[name]) == len(NEW)
    for old, new in copied():
        assert torch.equal(after[name][new], before[old if old < short else 0])
    config = json.loads((tmp_path / "built" / "config.json").read_text())
    assert config["vocab_size"] == config["vocab_size_per_layer_input"] == len(NEW)
    assert [tensor.name for tensor in result.source.layout.further] == [name]
    assert f"{name!r} depends on the vocabulary" in cannot_score_tables(result.source)
    with pytest.raises(VocabTransferError, match="which heads cannot carry"):
        create_hydra(result.source, tmp_path / "hydra")


def test_gemma_3n_with_eyes_keeps_the_ids_of_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "source", llama(tie_word_embeddings=True))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vision_config": {"vocab_offset": len(OLD) - 3}}))
    with pytest.raises(VocabTransferError, match=r"'vision_config.vocab_offset' of config.json says that the ids from"):
        built(folder)
    (folder / "config.json").write_text(json.dumps({**config, "image_token_offset": len(OLD) - 3}))
    with pytest.raises(VocabTransferError, match=r"'image_token_offset' of config\.json"):
        built(folder)


def test_rows_of_pictures_past_the_vocabulary(tmp_path: Path) -> None:
    """Mllama: config.json and the head count all tokens but the picture's, whose row is the first of eight more."""
    roles = {**ROLES}
    old = toy_tokenizer(["hello", " the"], roles=roles)
    rows = len(old)
    old.add_special_tokens({"extra_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    text = hf.MllamaForCausalLM(
        hf.models.mllama.configuration_mllama.MllamaTextConfig(
            **{"vocab_size": rows, "tie_word_embeddings": False, "cross_attention_layers": [1], **SIZES, **IDS}
        )
    )
    folder = write(tmp_path / "source", text, old)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_token_index": rows}))
    result, after = built(folder)
    before = load_file(folder / "model.safetensors")
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    assert len(before[table]) == rows + 8 and len(before[head]) == rows
    assert len(after[table]) == len(NEW) + 8 and len(after[head]) == len(NEW)
    image = NEW.get_vocab()["<image>"]
    assert torch.equal(after[table][image], before[table][rows])
    assert torch.equal(after[table][len(NEW) :], before[table][rows:])
    assert torch.allclose(after[head][image], before[head].mean(dim=0), atol=1e-6)
    new = json.loads((tmp_path / "built" / "config.json").read_text())
    assert (new["vocab_size"], new["image_token_index"]) == (len(NEW), image)
    assert result.source.layout.vocabulary_rows == rows


def test_marian_with_a_table_for_each_side(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = hf.MarianMTModel(
        hf.MarianConfig(
            **{"vocab_size": len(OLD), "decoder_vocab_size": len(OLD), "share_encoder_decoder_embeddings": False},
            **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2, **IDS},
            **{"forced_eos_token_id": 1, "max_position_embeddings": 64},
        )
    )
    model.final_logits_bias.copy_(torch.randn(1, len(OLD)))
    folder = write(tmp_path / "source", model)
    before = load_file(folder / "model.safetensors")
    result, after = built(folder, calibrate=False)
    sides = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    assert result.source.layout.input_name == sides[1]
    assert [tensor.name for tensor in result.source.layout.further] == [sides[0]]
    for old, new in copied():
        for name in sides:
            assert torch.equal(after[name][new], before[name][old])
        assert after["final_logits_bias"][0, new] == before["final_logits_bias"][0, old]
    config = json.loads((tmp_path / "built" / "config.json").read_text())
    assert config["vocab_size"] == config["decoder_vocab_size"] == len(NEW)


def test_a_lookup_gives_a_new_token_what_its_likest_source_token_has(tmp_path: Path) -> None:
    """DeepSeek V4 sends tokens to experts by their ids: integers, which have no mean."""
    experts = torch.arange(2 * len(OLD)).reshape(-1, 2) % 7
    folder = write(tmp_path / "source", llama(), extra={"model.layers.0.ffn.gate.tid2eid": experts})
    result, after = built(folder, calibrate=False)
    found = after["model.layers.0.ffn.gate.tid2eid"]
    assert found.dtype == experts.dtype and found.shape == (len(NEW), 2)
    for old, new in copied():
        assert torch.equal(found[new], experts[old])
    made = NEW.get_vocab()["".join(NEW.tokenize("сәлам"))]
    assert torch.equal(found[made], experts[result.token_map.row(made)[0][0]])


class _Ones:
    """Rows of another method for every token: of the main table's width, and no concern of other tables."""

    def __init__(self, count: int) -> None:
        self.mask = np.ones(count, np.bool_)

    def rows(self, part: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.ones((len(ids), 32), np.float32)


def test_rows_made_for_one_table_are_not_put_into_another(tmp_path: Path) -> None:
    extra = {"model.embed_tokens_per_layer.weight": torch.randn(len(OLD), 12)}
    folder = write(tmp_path / "source", llama(), extra=extra)
    plain = vt.transfer(open_checkpoint(folder), NEW, method="pieces", calibrate=False)
    dense = dataclasses.replace(plain.initialization, dense=_Ones(len(NEW)))
    tables = NewTables(plain.source, plain.inputs, dense)
    main, further = plain.source.layout.input, plain.source.layout.further[0]
    assert bool((tables.rows(main, 0, len(NEW)) == 1).all())
    assert torch.equal(tables.rows(further, 3, 40), plain.rows(further, 3, 40))
