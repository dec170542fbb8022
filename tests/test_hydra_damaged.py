"""Hydras that are damaged, or whose parts are another's: each is refused with one sentence that says what is wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra_samples import HIDDEN, Sample, make_source, one_thread, tokenizer, transferred  # noqa: F401
from safetensors.torch import load_file, save_file

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra import (
    HydraForCausalLM,
    add_head,
    backbone_fingerprint,
    create_hydra,
    export_head,
    list_heads,
    open_hydra,
    remove_head,
    verify_head,
)


@pytest.fixture(scope="module")
def source(sample: Sample) -> Checkpoint:
    return open_checkpoint(sample.standalone["english"])


def names(hydra: Path) -> list[str]:
    return [info.name for info in list_heads(hydra)]


def damaged(hydra: Path, name: str = "tatar") -> str:
    """Return what a list says about a damaged head; the same sentence meets whoever loads it."""
    problem = next(info.problem for info in list_heads(hydra) if info.name == name)
    assert problem is not None
    model = HydraForCausalLM.from_pretrained(hydra, dtype=torch.float32)
    with pytest.raises(VocabTransferError) as caught:
        model.set_head(name)
    assert str(caught.value) == problem
    assert model.active_head == "english"
    return problem


def test_heads_of_another_backbone_are_refused_unless_forced(hydra: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "other", seed=1)
    with pytest.raises(VocabTransferError, match="made for another backbone"):
        add_head(hydra, "foreign", transferred(other, "tatar"))
    assert "foreign" not in names(hydra)
    add_head(hydra, "foreign", transferred(other, "tatar"), force=True)
    info = next(info for info in list_heads(hydra) if info.name == "foreign")
    assert info.forced and info.problem is None
    HydraForCausalLM.from_pretrained(hydra).set_head("foreign")


def test_a_foreign_head_smuggled_in_is_refused_when_loaded(hydra: Path, tmp_path: Path) -> None:
    other = create_hydra(make_source(tmp_path / "other", seed=1), tmp_path / "second", own_name="english")
    head = add_head(other, "foreign", transferred(other.checkpoint, "tatar"))
    shutil.copytree(head.folder, hydra / "heads/foreign")
    assert "made for another backbone" in str(next(i.problem for i in list_heads(hydra) if i.name == "foreign"))
    with pytest.raises(VocabTransferError, match="made for another backbone"):
        HydraForCausalLM.from_pretrained(hydra).set_head("foreign")
    with pytest.raises(VocabTransferError, match="made for another backbone"):
        export_head(hydra, "foreign", tmp_path / "out")


def test_heads_of_another_width_are_refused_even_when_forced(hydra: Path, tmp_path: Path) -> None:
    config = hydra / "heads/tatar/head_config.json"
    values = json.loads(config.read_text())
    tables = load_file(hydra / "heads/tatar/head.safetensors")
    save_file({"input": tables["input"][:, :16].contiguous()}, hydra / "heads/tatar/head.safetensors")
    config.write_text(json.dumps({**values, "hidden": 16, "forced": True}))
    assert "rows of width 16" in damaged_when_set(hydra)


def damaged_when_set(hydra: Path) -> str:
    with pytest.raises(VocabTransferError) as caught:
        HydraForCausalLM.from_pretrained(hydra).set_head("tatar")
    return str(caught.value)


def test_the_fingerprint_is_the_bodys(sample: Sample, source: Checkpoint, tmp_path: Path) -> None:
    known = open_hydra(sample.hydra).fingerprint
    assert backbone_fingerprint(open_checkpoint(sample.standalone["tatar"])) == known
    assert backbone_fingerprint(make_source(tmp_path / "one", shards=False)) == known
    assert backbone_fingerprint(make_source(tmp_path / "untied", tied=False, seed=1)) != known
    tuned = shutil.copytree(source.path, tmp_path / "tuned")
    file = next(f for f in sorted(tuned.glob("*.safetensors")) if "model.norm.weight" in load_file(f))
    tensors = load_file(file)
    tensors["model.norm.weight"][3] += 0.001
    save_file(tensors, file, {"format": "pt"})
    assert backbone_fingerprint(open_checkpoint(tuned)) != known


def test_a_backbone_that_was_swapped_is_noticed(hydra: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "other", seed=1)
    for shard in other.shards:
        (hydra / shard.file.name).unlink()
        shutil.copyfile(shard.file, hydra / shard.file.name)
    with pytest.raises(VocabTransferError, match="put its weights back"):
        HydraForCausalLM.from_pretrained(hydra)
    with pytest.raises(VocabTransferError, match="put its weights back"):
        verify_head(hydra, "tatar")


def test_truncated_tensors_are_refused_at_any_length(hydra: Path) -> None:
    file = hydra / "heads/tatar/head.safetensors"
    content = file.read_bytes()
    for length in (0, 4, 8, 20, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        assert str(file) in damaged(hydra)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"input": torch.zeros(288, 16)}, "instead of floats"),
        ({"input": torch.zeros(100, HIDDEN)}, "instead of floats"),
        ({"input": torch.zeros(288 * HIDDEN)}, "instead of floats"),
        ({"input": torch.zeros(288, HIDDEN, dtype=torch.int32)}, "instead of floats"),
        ({"output": torch.zeros(288, HIDDEN)}, "lacks the tensor 'input'"),
        ({"input": torch.zeros(288, HIDDEN), "output": torch.zeros(288, HIDDEN)}, "says that it is tied"),
        ({"input": torch.zeros(288, HIDDEN), "extra": torch.zeros(1)}, "no part of a head"),
    ],
)
def test_wrong_tensors_are_refused(hydra: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    assert len(tokenizer("tatar")) == 288
    save_file(tensors, hydra / "heads/tatar/head.safetensors")
    assert said in damaged(hydra)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 287}, "instead of floats"),
        ({"rows": "288"}, "'rows' is '288'"),
        ({"rows": -1}, "'rows' is -1"),
        ({"tied": "yes"}, "'tied' is 'yes'"),
        ({"tied": False}, "lacks the tensor 'output'"),
        ({"format": 99}, "newer version"),
        ({"format": None}, "names no format"),
        ({"backbone": None}, "'backbone' is None"),
        ({"values": []}, "'values' is []"),
    ],
)
def test_a_damaged_config_is_refused(hydra: Path, change: dict[str, object], said: str) -> None:
    config = hydra / "heads/tatar/head_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    assert said in damaged(hydra)


def test_missing_and_unreadable_files_are_refused(hydra: Path) -> None:
    folder = hydra / "heads/tatar"
    (folder / "head_config.json").write_text("{not json")
    assert "is not JSON" in damaged(hydra)
    (folder / "head_config.json").unlink()
    assert "cannot be read" in damaged(hydra)
    shutil.rmtree(folder)
    folder.symlink_to(hydra / "heads/dutch")
    assert "symbolic link" in damaged(hydra)
    remove_head(hydra, "tatar")
    assert (hydra / "heads/dutch/head.safetensors").is_file()


def test_a_tokenizer_larger_than_the_tables_is_refused(hydra: Path) -> None:
    shutil.copyfile(hydra / "heads/tatar/tokenizer.json", hydra / "heads/dutch/tokenizer.json")
    with pytest.raises(VocabTransferError, match="does not fit"):
        HydraForCausalLM.from_pretrained(hydra).tokenizer("dutch")


def test_verifying_finds_a_changed_byte(hydra: Path) -> None:
    for name in ("head.safetensors", "tokenizer.json", "token_map.safetensors"):
        file = hydra / "heads/tatar" / name
        content = file.read_bytes()
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        with pytest.raises(VocabTransferError, match=name):
            verify_head(hydra, "tatar")
        file.write_bytes(content)
    verify_head(hydra, "tatar")
    (hydra / "heads/tatar/tokenizer_config.json").unlink()
    with pytest.raises(VocabTransferError, match="is missing"):
        verify_head(hydra, "tatar")
