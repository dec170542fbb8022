"""A PEFT adapter as a source: merged when asked, else refused in a sentence, and never left out without a word."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import vocabtransfer as vt
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.tokenization.save import save_tokenizer

peft = pytest.importorskip("peft")
TOKENIZER = toy_tokenizer(["hello", " world"])
NEW = toy_tokenizer(["сәлам", "hello", " дөнья"], seed=4)


def base(folder: Path, tied: bool = True) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    roles = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=len(TOKENIZER), tie_word_embeddings=tied, num_key_value_heads=2, **sizes, **roles)
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(TOKENIZER, folder)
    return folder


def adapter(model: Path, folder: Path, *, rows: int | None = None, **settings: Any) -> torch.nn.Module:
    """Write a trained LoRA of a model as PEFT saves it, with its base's name; return the adapted model."""
    plain = AutoModelForCausalLM.from_pretrained(model)
    if rows:
        plain.resize_token_embeddings(rows)
    wrapped = peft.get_peft_model(plain, peft.LoraConfig(target_modules=["q_proj", "down_proj"], r=2, **settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([TOKENIZER("hello world")["input_ids"]])).logits


def beside(model: Path, folder: Path) -> Path:
    for file in folder.glob("adapter_*"):
        shutil.copy(file, model / file.name)
    return model


@pytest.mark.parametrize("place", ["beside", "alone"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_is_merged_when_asked(place: str, tied: bool, tmp_path: Path) -> None:
    wanted = logits(adapter(base(tmp_path / "base", tied), tmp_path / "lora"))
    folder = beside(tmp_path / "base", tmp_path / "lora") if place == "beside" else tmp_path / "lora"
    with pytest.raises(VocabTransferError, match="--merge-adapter"):
        open_checkpoint(folder)
    merged = open_checkpoint(folder, merge=True)
    assert merged.layout.tied == tied and merged.name == folder.name
    result = AutoModelForCausalLM.from_pretrained(merged.path)
    assert torch.allclose(logits(result), wanted, atol=1e-5)
    assert open_checkpoint(folder, merge=True).path == merged.path
    vt.transfer(merged, NEW, method="pieces", calibrate=False).save(tmp_path / "out")
    built = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    table, old = built.get_input_embeddings().weight, result.get_input_embeddings().weight
    new, was = NEW.get_vocab()["hello"], TOKENIZER.get_vocab()["hello"]
    assert torch.equal(table[new], old[was])


def test_tables_trained_in_full_take_the_places_of_the_bases(tmp_path: Path) -> None:
    """``modules_to_save`` and a vocabulary that grew: embed_tokens and lm_head come from the adapter, 4 rows longer."""
    tokenizer = toy_tokenizer(["hello", " world"])
    tokenizer.add_tokens(["дөнья", "сәлам", "китап", "өй"])
    save = ["embed_tokens", "lm_head"]
    wanted = adapter(base(tmp_path / "base", tied=False), tmp_path / "lora", rows=len(tokenizer), modules_to_save=save)
    save_tokenizer(tokenizer, tmp_path / "lora")
    merged = open_checkpoint(tmp_path / "lora", merge=True)
    assert merged.layout.rows == len(tokenizer) and not merged.layout.tied
    assert len(merged.tokenizer) == len(tokenizer)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged.path)), logits(wanted), atol=1e-5)


def test_a_tied_head_that_was_trained_apart_is_untied(tmp_path: Path) -> None:
    wanted = adapter(base(tmp_path / "base"), tmp_path / "lora", modules_to_save=["lm_head"])
    merged = open_checkpoint(tmp_path / "lora", merge=True)
    assert not merged.layout.tied and merged.layout.output_name == "lm_head.weight"
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged.path)), logits(wanted), atol=1e-5)


def test_build_refuses_or_merges_before_anything_is_written(tmp_path: Path) -> None:
    adapter(base(tmp_path / "base"), tmp_path / "lora", modules_to_save=["embed_tokens"])
    save_tokenizer(NEW, tmp_path / "new")
    request = {"source": str(tmp_path / "lora"), "target": "tatar", "tokenizer": tmp_path / "new", "method": "pieces"}
    with pytest.raises(VocabTransferError, match=r"is a PEFT adapter of the model '.*base' and no model itself"):
        build(BuildRequest(**request, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    built = build(BuildRequest(**request, output=tmp_path / "out", merge_adapter=True))
    assert built.proof is not None and built.proof.loaded == "LlamaForCausalLM"
    AutoTokenizer.from_pretrained(tmp_path / "out")


def test_a_wrappers_tensors_are_no_model(tmp_path: Path) -> None:
    """Someone saved the state dict of the PEFT model itself as model.safetensors, or copied the adapter's over it."""
    wrapped = adapter(base(tmp_path / "base"), tmp_path / "lora")
    state = {name: value.clone() for name, value in wrapped.state_dict().items()}
    save_file(state, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VocabTransferError, match=r"the tensors of a PEFT wrapper \('base_model.model"):
        open_checkpoint(tmp_path / "base")
    unprefixed = {name.removeprefix("base_model.model."): value for name, value in state.items()}
    save_file(unprefixed, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VocabTransferError, match="PEFT wrapper"):
        open_checkpoint(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    shutil.copy(tmp_path / "lora" / "adapter_model.safetensors", tmp_path / "base")
    with pytest.raises(VocabTransferError, match="PEFT wrapper"):
        open_checkpoint(tmp_path / "base")


def test_adapters_that_cannot_be_merged_say_why(tmp_path: Path) -> None:
    adapter(base(tmp_path / "base"), tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    named = {**config, "base_model_name_or_path": str(tmp_path / "gone")}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(named))
    with pytest.raises(VocabTransferError, match=r"stands on the model '.*gone', which cannot be opened"):
        open_checkpoint(tmp_path / "lora", merge=True)
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    save_file({name: value[:1] for name, value in tensors.items()}, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(VocabTransferError, match="cannot be merged into"):
        open_checkpoint(tmp_path / "lora", merge=True)
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), prompt).save_pretrained(
        tmp_path / "prompt"
    )
    with pytest.raises(VocabTransferError, match="PROMPT_TUNING adapter, which cannot be merged"):
        open_checkpoint(tmp_path / "prompt", merge=True)
