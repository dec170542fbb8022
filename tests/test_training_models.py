"""Stages on tiny models of other architectures: trained, written back under the files' own names, loaded again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_samples import one_thread, parameters, request, write_text
from thinned import first_of
from transformers import AutoConfig, AutoModelForCausalLM

import vocabtransfer as vt
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.save import save_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 48}
CASES: dict[str, dict[str, Any]] = {
    "qwen2": {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 32, "n_layer": 5, "n_head": 4},
    "gpt_neox": SMALL,
    "phi": SMALL,
    "bloom": {"hidden_size": 32, "n_layer": 5, "n_head": 4},
    "gemma3_text": {**SMALL, "head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 30.0},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def make(folder: Path, model_type: str, settings: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    tokenizer = toy_tokenizer(["het", "huis", " wind"])
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_position_embeddings": 64}
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **ids, **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.mark.parametrize("model_type", first_of(CASES, "gpt2"))
def test_all_stages_on_other_architectures(tmp_path: Path, model_type: str) -> None:
    model = make(tmp_path / "model", model_type, CASES[model_type])
    text = write_text(tmp_path / "nl.txt", documents=20)
    stages = ("tables:2:1e-2", "outer:2:1e-2", "lora:2:1e-2", "all:2:1e-3")
    options: dict[str, Any] = {"held_out": (text,), "held_out_bytes": 200}
    result = vt.adapt(request(model, text, tmp_path / "out", *stages, **options))
    ours, theirs = parameters(model), parameters(tmp_path / "out")
    assert ours.keys() == theirs.keys()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours if ".2." in name)  # a layer in the middle
    measured = vt.evaluate(tmp_path / "out", [text], max_bytes=200).bits_per_byte
    assert measured == pytest.approx(result.facts["bits_per_byte"], rel=1e-4)


def test_files_that_name_a_layer_otherwise_are_refused_before_training(tmp_path: Path) -> None:
    settings = {**SMALL, "num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 2}
    model = make(tmp_path / "model", "mixtral", settings)
    text = write_text(tmp_path / "nl.txt", documents=20)
    with pytest.raises(VocabTransferError, match="could not be written back: train the tables only"):
        vt.adapt(request(model, text, tmp_path / "out", "all:2:1e-2"))
    assert not (tmp_path / "out").exists()
    vt.adapt(request(model, text, tmp_path / "out", "tables:2:1e-2", overwrite=True))
