"""Heads written as checkpoints of their own, and all heads as one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra_samples import Sample, ids_for, make_sample, one_thread, tokenizer  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.hydra import (
    add_head_from_checkpoint,
    export_concatenated,
    export_head,
)


@pytest.mark.parametrize("name", ["english", "tatar", "dutch"])
def test_an_exported_head_is_the_standalone_checkpoint(sample: Sample, tmp_path: Path, name: str) -> None:
    report = export_head(sample.hydra, name, tmp_path / "out")
    assert report.bytes_linked > 0
    exported, built = open_checkpoint(tmp_path / "out"), open_checkpoint(sample.standalone[name])
    assert exported.tensors.keys() == built.tensors.keys()
    for tensor in built.tensors:
        assert torch.equal(exported.read(tensor), built.read(tensor)), tensor
    model, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32), ids_for(name)
    assert torch.equal(model(ids).logits, sample.plain(name)(ids).logits)
    assert model.config.eos_token_id == tokenizer(name).eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer(name).get_vocab()


@pytest.mark.parametrize("tied", [True, False])
def test_heads_tied_otherwise_than_the_backbone(tmp_path: Path, tied: bool) -> None:
    """A tied head on an untied backbone, and the reverse: in the Hydra, exported, and joined with the others."""
    sample = make_sample(tmp_path / "sample", tied=tied)
    other = AutoModelForCausalLM.from_pretrained(sample.standalone["tatar"], dtype=torch.float32)
    other.config.tie_word_embeddings = not tied
    weight = other.get_input_embeddings().weight.detach()
    torch.manual_seed(1)
    other.lm_head.weight = torch.nn.Parameter(torch.randn_like(weight) if tied else weight.clone())
    other.all_tied_weights_keys = {} if tied else {"lm_head.weight": "model.embed_tokens.weight"}
    other.save_pretrained(tmp_path / "other")
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(sample.standalone["tatar"] / file, tmp_path / "other" / file)
    head = add_head_from_checkpoint(sample.hydra, "other", open_checkpoint(tmp_path / "other"))
    assert head.config.tied is not tied
    ids = ids_for("tatar")
    wanted = other.eval()(ids).logits
    model = sample.load()
    assert torch.equal(model(ids, head="other").logits, wanted)
    assert model.view("other").config.tie_word_embeddings is not tied
    export_head(sample.hydra, "other", tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(exported(ids).logits, wanted)
    model.view("other").save_pretrained(tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(saved(ids).logits, wanted)
    assert_joined(sample, tmp_path / "joined", {**sample.standalone, "other": tmp_path / "other"})


def test_the_joined_checkpoint_has_every_heads_logits(sample: Sample, tmp_path: Path) -> None:
    assert_joined(sample, tmp_path / "joined", sample.standalone)


def assert_joined(sample: Sample, target: Path, standalone: dict[str, Path]) -> None:
    export_concatenated(sample.hydra, target)
    joined = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    table = json.loads((target / "hydra_vocabulary.json").read_text())["heads"]
    assert table.keys() == standalone.keys()
    ends = {
        name: AutoModelForCausalLM.from_pretrained(folder).config.eos_token_id for name, folder in standalone.items()
    }
    for name, folder in standalone.items():
        begin, end = table[name]["allowed"]
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = ids_for("tatar" if name == "other" else name)
        assert table[name]["offset"] == begin and end - begin == plain.config.vocab_size
        assert table[name]["eos"] == [begin + ends[name]]
        torch.testing.assert_close(joined(ids + begin).logits[..., begin:end], plain(ids).logits, rtol=1e-5, atol=1e-5)
        settings = AutoModelForCausalLM.from_pretrained(folder).generation_config.from_pretrained(
            target / table[name]["folder"]
        )
        made = joined.generate(ids + begin, generation_config=settings, max_new_tokens=8, do_sample=False)
        wanted = plain.generate(ids, max_new_tokens=8, do_sample=False)
        assert torch.equal(made - begin, wanted)
    assert set(joined.generation_config.eos_token_id) == {table[name]["eos"][0] for name in standalone}


def test_joining_takes_the_heads_asked_for(sample: Sample, tmp_path: Path) -> None:
    export_concatenated(sample.hydra, tmp_path / "two", heads=["tatar", "english"])
    table = json.loads((tmp_path / "two/hydra_vocabulary.json").read_text())["heads"]
    assert list(table) == ["tatar", "english"] and table["tatar"]["offset"] == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "two").get_vocab() == tokenizer("tatar").get_vocab()
    with pytest.raises(UsageError, match="once"):
        export_concatenated(sample.hydra, tmp_path / "twice", heads=["tatar", "tatar"])
    with pytest.raises(UsageError, match="at least one"):
        export_concatenated(sample.hydra, tmp_path / "none", heads=[])
