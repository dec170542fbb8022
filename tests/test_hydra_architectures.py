"""Heads on the architectures that keep their tables elsewhere: other names, biases, positions, scalings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import TEXTS, Sample, ids_for, one_thread, tokenizer, transferred  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.hydra import add_head, create_hydra, export_concatenated, export_head
from vocabtransfer.tokenization.save import save_tokenizer

GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
WIDE = {**COMMON, "intermediate_size": 48, "initializer_range": 0.3}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "rotary_dim": 8, "initializer_range": 0.3},
    "phi": WIDE,
    "gpt_neox": WIDE,
    "opt": {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.3},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3},
    "gemma": {**WIDE, "head_dim": 16, "num_key_value_heads": 1},
    "gemma3_text": {**WIDE, "head_dim": 16, "num_key_value_heads": 1},
    "qwen3": {**WIDE, "head_dim": 16, "num_key_value_heads": 1},
    "cohere": {**WIDE, "logit_scale": 0.5},
    "granite": {**WIDE, "embedding_multiplier": 3.0, "logits_scaling": 2.0},
}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_heads_fit_every_architecture(tmp_path: Path, kind: str) -> None:
    own = tokenizer("english")
    ids = {key: getattr(own, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=len(own), **ids, **CONFIGS[kind])
    made = AutoModelForCausalLM.from_config(config)
    if made.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(made.get_output_embeddings().bias)
    made.save_pretrained(tmp_path / "source")
    save_tokenizer(own, tmp_path / "source")
    source = open_checkpoint(tmp_path / "source")
    create_hydra(source, tmp_path / "hydra", own_name="english")
    result = transferred(source, "tatar")
    add_head(tmp_path / "hydra", "tatar", result)
    standalone = result.save(tmp_path / "tatar").path
    export_head(tmp_path / "hydra", "tatar", tmp_path / "exported")
    sample = Sample(
        tmp_path / "hydra", {"english": source.path, "tatar": standalone, "exported": tmp_path / "exported"}
    )
    model = sample.load()
    plain = {name: sample.plain(name) for name in sample.standalone}
    for name in ("english", "tatar", "english"):
        batch = ids_for(name, length=5)
        assert torch.equal(model(batch, head=name).logits, plain[name](batch).logits)
        assert torch.equal(model.generate(batch, head=name, **GREEDY), plain[name].generate(batch, **GREEDY))
    batch = ids_for("tatar")
    assert torch.equal(plain["exported"](batch).logits, plain["tatar"](batch).logits)

    rows = [[(name, TEXTS[name])] for name in ("english", "tatar")]
    together = model.generate(**model.encode(rows), **GREEDY)
    for tokens, row in zip(together, rows, strict=True):
        name, text = row[0]
        prompt = torch.tensor([tokenizer(name)(text)["input_ids"]])
        alone = plain[name].generate(prompt, **GREEDY)[0, prompt.shape[1] :]
        assert model.decode(tokens, name) == model.decode(alone, name)
    assert model.generate(ids_for("english"), head=("english", "tatar"), **GREEDY).shape == (2, 4)

    export_concatenated(tmp_path / "hydra", tmp_path / "joined", heads=["english", "tatar"])
    joined = AutoModelForCausalLM.from_pretrained(tmp_path / "joined", dtype=torch.float32).eval()
    logits = joined(batch + len(own)).logits[..., len(own) :]
    torch.testing.assert_close(logits, plain["tatar"](batch).logits, rtol=1e-4, atol=1e-4)
