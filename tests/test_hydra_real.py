"""A Hydra of a real model: SmolLM2 with its own vocabulary and one for Dutch, from the table that ships."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import vocabtransfer as vt
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.hydra import HydraForCausalLM, add_head, create_hydra, export_head, verify_head
from vocabtransfer.surgery.evidence import target_words

GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}


@pytest.mark.slow
def test_smollm2_with_dutch(smollm2_folder: Path, tmp_path: Path) -> None:
    source = open_checkpoint("smollm2")
    table = vt.shipped_table(vt.find_language("dutch"))
    assert table is not None
    words = {word: round(count) for word, count in target_words(table).items() if round(count)}
    tokenizer = vt.train_tokenizer(words, like=source.tokenizer, vocab_size=4_000)
    result = vt.transfer(source, tokenizer, vt.Evidence(alignment=table), calibrate=False)
    hydra = create_hydra(source, tmp_path / "hydra", own_name="english")
    add_head(hydra, "dutch", result, language="nl")
    standalone = result.save(tmp_path / "dutch").path
    export_head(hydra, "dutch", tmp_path / "exported")
    verify_head(hydra, "dutch")

    model = HydraForCausalLM.from_pretrained(hydra.path, dtype=torch.float32)
    plain = {
        "english": AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval(),
        "dutch": AutoModelForCausalLM.from_pretrained(standalone, dtype=torch.float32).eval(),
    }
    texts = {"english": "The capital of the Netherlands is", "dutch": "De hoofdstad van Nederland is"}
    for name, text in texts.items():
        ids = model.tokenizer(name)(text, return_tensors="pt")["input_ids"]
        assert torch.equal(model(ids, head=name).logits, plain[name](ids).logits)
        made = model.generate(ids, head=name, **GREEDY)
        assert torch.equal(made, plain[name].generate(ids, **GREEDY))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32)
    assert torch.equal(exported(ids).logits, plain["dutch"](ids).logits)

    rows = [[(name, text)] for name, text in texts.items()]
    together = model.decode(model.generate(**model.encode(rows), **GREEDY), list(texts))
    alone = [model.decode(model.generate(**model.encode(row), **GREEDY), row[0][0])[0] for row in rows]
    assert together == alone
    assert "Amsterdam" in together[0]
    translations = model.translate(["The book is on the table."], source="english", target="dutch", max_new_tokens=16)
    assert translations[0].strip() and "\n" not in translations[0]
