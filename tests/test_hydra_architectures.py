"""Heads on the architectures that keep their tables elsewhere: other names, biases, positions, scalings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import CONFIGS, FAR_APART, TEXTS, Sample, ids_for, make_architecture, one_thread, tokenizer  # noqa: F401
from thinned import first_of
from transformers import AutoModelForCausalLM

from vocabtransfer.hydra import export_concatenated, export_head

GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}


@pytest.mark.parametrize("kind", first_of(sorted(CONFIGS), *FAR_APART))
def test_heads_fit_every_architecture(tmp_path: Path, kind: str) -> None:
    made = make_architecture(tmp_path, kind)
    export_head(tmp_path / "hydra", "tatar", tmp_path / "exported")
    sample = Sample(made.hydra, {**made.standalone, "exported": tmp_path / "exported"})
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
    own = len(tokenizer("english"))
    joined = AutoModelForCausalLM.from_pretrained(tmp_path / "joined", dtype=torch.float32).eval()
    logits = joined(batch + own).logits[..., own:]
    torch.testing.assert_close(logits, plain["tatar"](batch).logits, rtol=1e-4, atol=1e-4)
