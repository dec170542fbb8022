"""The heads of a loaded Hydra: when they are read and given up, heads from elsewhere, files that change meanwhile."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import Sample, ids_for, make_source, one_thread, tokenizer  # noqa: F401

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM, add_head, create_hydra, remove_head


@pytest.fixture
def model(sample: Sample) -> HydraForCausalLM:
    return sample.load()


def test_heads_are_loaded_when_used_and_given_up_when_the_budget_ends(sample: Sample) -> None:
    model = sample.load(head_budget=40_000)
    assert model.loaded_heads == ("english",) and model.heads == ("english", "dutch", "tatar")
    expected = ids_for("tatar")
    first = model(expected, head="tatar").logits
    assert model.loaded_heads == ("english", "tatar") and 0 < model.head_bytes <= 40_000
    model.set_head("dutch")
    assert model.loaded_heads == ("english", "dutch")
    assert torch.equal(model(expected, head="tatar").logits, first)
    model.head_budget = None
    model.load_head("dutch")
    assert model.loaded_heads == ("english", "dutch", "tatar")
    model.set_head("dutch")
    model.head_budget = model.head_bytes - 1
    assert model.loaded_heads == ("english", "dutch"), "the least recently used goes first"
    with pytest.raises(VocabTransferError, match="more than the budget"):
        sample.load(head_budget=1000).set_head("tatar")


def test_deleting(model: HydraForCausalLM) -> None:
    model.set_head("tatar")
    for name, said in (("english", "own head"), ("tatar", "is active")):
        with pytest.raises(UsageError, match=said):
            model.delete_head(name)
    with model.use_head("dutch"), pytest.raises(UsageError, match="is active"):
        model.delete_head("dutch")
    model.delete_head("dutch")
    assert model.heads == ("english", "tatar")
    with pytest.raises(VocabTransferError, match="no head named 'dutch'"):
        model.generate(ids_for("dutch"), head="dutch")
    model.load_head("dutch")
    assert model.heads == ("english", "dutch", "tatar")


def test_heads_from_elsewhere(sample: Sample, plain: dict[str, Any], tmp_path: Path) -> None:
    """A plain checkpoint is a Hydra with one head; finished checkpoints and head folders load into it."""
    model = HydraForCausalLM.from_pretrained(sample.standalone["english"], dtype=torch.float32)
    assert model.heads == ("base",)
    model.load_head("tatar", sample.standalone["tatar"])
    model.load_head("nl", sample.hydra / "heads/dutch")
    for name, other in (("tatar", "tatar"), ("nl", "dutch"), ("base", "english")):
        assert torch.equal(model(ids_for(other), head=name).logits, plain[other](ids_for(other)).logits)
    foreign = make_source(tmp_path / "foreign", seed=5)
    with pytest.raises(VocabTransferError, match="another backbone"):
        model.load_head("foreign", foreign)
    model.load_head("foreign", foreign, force=True)
    model.set_head("foreign")
    with pytest.raises(UsageError, match="already has a head"):
        model.load_head("tatar", sample.standalone["tatar"])
    with pytest.raises(UsageError, match="no place for the head"):
        model.save_head("tatar", "copy")


def test_a_head_added_meanwhile(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    hydra = create_hydra(source, tmp_path / "hydra", own_name="english")
    model = HydraForCausalLM.from_pretrained(hydra.path)
    add_head(hydra, "tatar", vt.transfer(source, tokenizer("tatar"), method="mean", calibrate=False))
    assert model.heads == ("english",)
    model.load_head("tatar")
    model.set_head("tatar")


def test_files_that_change_while_the_model_runs(sample: Sample, plain: dict[str, Any], tmp_path: Path) -> None:
    """A head that has to be loaded again is read as it is then: never half of the old one and half of the new."""
    hydra = Path(shutil.copytree(sample.hydra, tmp_path / "hydra"))
    model = HydraForCausalLM.from_pretrained(hydra, dtype=torch.float32)
    model.load_head("tatar")
    model.load_head("nl", shutil.copytree(sample.standalone["dutch"], tmp_path / "nl"))
    remove_head(hydra, "tatar")
    shutil.rmtree(tmp_path / "nl")
    assert torch.equal(model(ids_for("tatar"), head="tatar").logits, plain["tatar"](ids_for("tatar")).logits)
    with pytest.raises(VocabTransferError, match="changed meanwhile"):
        model.tokenizer("tatar")
    model.head_budget = 0
    model.head_budget = None
    for name in ("tatar", "nl"):
        with pytest.raises(VocabTransferError, match=r"was removed or changed: load it again\."):
            model.set_head(name)
    shutil.copytree(hydra / "heads/dutch", hydra / "heads/tatar")
    assert torch.equal(model(ids_for("dutch"), head="tatar").logits, plain["dutch"](ids_for("dutch")).logits)
    assert model.tokenizer("tatar").get_vocab() == tokenizer("dutch").get_vocab()
