"""Changing the body: task arithmetic tensor by tensor, links for all that stays, nothing left behind when it fails."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from propagation_samples import (
    INPUT,
    OUTPUT,
    adapted_tokenizer,
    chat_tokenizer,
    family,
    load_all,
    save_model,
    snapshot,
)

from vocabtransfer.checkpoint import plan_checkpoint, shards
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.propagation import propagate, restore_layers

TABLES = (INPUT, OUTPUT)


def test_the_body_is_linked_when_it_stays(tmp_path: Path) -> None:
    made = family(tmp_path)
    report = propagate(made.base, made.adapted, made.instruct, body_lambda=0.0).save(tmp_path / "out")
    written = load_all(report.path)
    for name, value in made.tensors["instruct"].items():
        assert name in TABLES or torch.equal(written[name], value)
    tables = {tensor.name for tensor in made.instruct.layout.tensors}
    untouched = [shard for shard in made.instruct.shards if not tables & {info.name for info in shard.tensors}]
    assert untouched and all((report.path / s.file.name).samefile(s.file) for s in untouched)
    assert report.bytes_linked == sum(shard.size for shard in untouched)


def test_task_arithmetic(tmp_path: Path) -> None:
    made = family(tmp_path)
    result = propagate(made.base, made.adapted, made.instruct, body_lambda=0.5)
    written = load_all(result.save(tmp_path / "out").path)
    base, adapted, instruct = (made.tensors[name] for name in ("base", "adapted", "instruct"))
    for name in instruct.keys() - set(TABLES):
        assert torch.equal(written[name], instruct[name] + 0.5 * (adapted[name] - base[name]))
    assert result.facts["body"] == {"lambda": 0.5, "tensors_changed": len(instruct) - 2}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_whole_change_on_the_base_gives_the_adapted_body(dtype: torch.dtype, tmp_path: Path) -> None:
    made = family(tmp_path, dtype=dtype, same_instruct=True)
    result = propagate(made.base, made.adapted, made.instruct, body_lambda=1.0)
    written = load_all(result.save(tmp_path / "out").path)
    assert written.keys() == made.tensors["adapted"].keys()
    for name, value in made.tensors["adapted"].items():
        assert torch.equal(written[name], value), name


def test_a_body_that_adaptation_left_alone_is_linked(tmp_path: Path) -> None:
    made = family(tmp_path, same_body=True)
    result = propagate(made.base, made.adapted, made.instruct, body_lambda=0.7)
    report = result.save(tmp_path / "out")
    assert report.bytes_linked > 0 and not result.changes
    assert any("so the body stays" in note for note in result.notes)


@pytest.mark.parametrize("link", ["hard", "copy"])
def test_only_changed_shards_are_rewritten(link: Any, tmp_path: Path) -> None:
    made = family(tmp_path, same_body=True, layers=6)
    tensors = {name: value.clone() for name, value in made.tensors["adapted"].items()}
    tensors["model.layers.3.mlp.up_proj.weight"] += 1.0
    adapted = save_model(tmp_path / "changed", tensors, adapted_tokenizer(), tied=False)
    base = save_model(tmp_path / "many", made.tensors["instruct"], chat_tokenizer(), tied=False, shards=9)
    before = snapshot(tmp_path / "many")
    report = propagate(made.base, adapted, base, body_lambda=1.0).save(tmp_path / "out", link=link)
    assert snapshot(tmp_path / "many") == before
    written = load_all(report.path)
    for name, value in made.tensors["instruct"].items():
        changed = name == "model.layers.3.mlp.up_proj.weight"
        if name not in TABLES:
            torch.testing.assert_close(written[name], value + changed, rtol=1e-14, atol=1e-14)
    shared = [shard.size for shard in base.shards if (report.path / shard.file.name).samefile(shard.file)]
    assert report.bytes_linked == sum(shared) and (len(shared) == 6 if link == "hard" else not shared)
    total = sum(file.stat().st_size for file in report.path.rglob("*") if file.is_file())
    assert report.bytes_written == total - sum(shared)
    assert [str(base.path) in note for note in report.notes if "hard links" in note] == [True] * (link == "hard")
    assert all(file.stat().st_nlink == 1 for file in report.path.iterdir()) is (link == "copy")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_adapted_output_can_be_replaced_by_the_next(tmp_path: Path) -> None:
    made = family(tmp_path)
    target = tmp_path / "out"
    propagate(made.base, made.adapted, made.instruct, method="swap").save(target)
    propagate(made.base, made.adapted, made.instruct, body_lambda=1.0).save(target, overwrite=True)
    assert json.loads((target / "propagation.json").read_text())["body"]["lambda"] == 1.0


def test_scalars_and_integers_in_the_body(tmp_path: Path) -> None:
    """A buffer of integers stays the instruct model's; a number without axes is added like all others."""
    made = family(tmp_path)
    models = {}
    for i, name in enumerate(("base", "adapted", "instruct")):
        tensors = {**made.tensors[name], "model.layers.0.scale": torch.tensor(float(i + 1), dtype=torch.float64)}
        tensors["model.layers.0.steps"] = torch.tensor([i, i])
        models[name] = save_model(tmp_path / f"{name}-more", tensors, getattr(made, name).tokenizer, tied=False)
    result = propagate(models["base"], models["adapted"], models["instruct"], body_lambda=0.5)
    written = load_all(result.save(tmp_path / "out").path)
    assert written["model.layers.0.scale"].item() == 3.5 and written["model.layers.0.steps"].tolist() == [2, 2]


@pytest.mark.parametrize("block", [1, 50])
def test_blocks_do_not_show(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = family(tmp_path)
    propagate(made.base, made.adapted, made.instruct, body_lambda=0.3).save(tmp_path / "whole")
    monkeypatch.setattr(shards, "BLOCK_ELEMENTS", block)
    propagate(made.base, made.adapted, made.instruct, body_lambda=0.3).save(tmp_path / "blocks")
    whole, blocks = load_all(tmp_path / "whole"), load_all(tmp_path / "blocks")
    for name, value in whole.items():
        # A product of matrices may differ in its last bit with the number of rows; sums and differences do not.
        assert torch.equal(value, blocks[name]) if name not in TABLES else torch.allclose(value, blocks[name])


def test_a_body_that_overflows_leaves_nothing_behind(tmp_path: Path) -> None:
    made = family(tmp_path, dtype=torch.float16)
    tensors = {name: value.clone() for name, value in made.tensors["adapted"].items()}
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 60000.0
    adapted = save_model(tmp_path / "large", tensors, adapted_tokenizer(), tied=False)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(VocabTransferError, match=r"the new 'model.layers.1.mlp.up_proj.weight' is not finite in F16"):
        propagate(made.base, adapted, made.instruct, body_lambda=5.0).save(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_full_disk_is_known_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = family(tmp_path)
    result = propagate(made.base, made.adapted, made.instruct, body_lambda=1.0)
    plan = plan_checkpoint(
        made.instruct, tmp_path / "out", vocabulary_size=len(result.tokenizer), changed=result.changes
    )
    assert plan.bytes_linked == 0 and plan.bytes_written > sum(shard.size for shard in made.instruct.shards) / 2
    least = plan.bytes_needed - 1
    usage = type("Usage", (), {"free": least, "total": 0, "used": 0})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(VocabTransferError, match=r"GB, but its disk has .* make room"):
        result.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["base", "adapted", "instruct"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_no_model_is_written_over(name: str, weight: float, tmp_path: Path) -> None:
    made = family(tmp_path)
    result = propagate(made.base, made.adapted, made.instruct, body_lambda=weight)
    before = snapshot(tmp_path)
    for target in (tmp_path / name, tmp_path / name / "inside", tmp_path):
        with pytest.raises(VocabTransferError, match=r"overlap: choose another output"):
            result.save(target, overwrite=True)
    assert snapshot(tmp_path) == before


def test_foreign_folders_are_not_overwritten(tmp_path: Path) -> None:
    made = family(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for weight in (0.0, 1.0):
        result = propagate(made.base, made.adapted, made.instruct, body_lambda=weight)
        with pytest.raises(VocabTransferError, match="exists already"):
            result.save(tmp_path / "out")
        with pytest.raises(VocabTransferError, match="was not written by vocabtransfer"):
            result.save(tmp_path / "out", overwrite=True)
    assert snapshot(tmp_path / "out") == {"notes.txt": b"mine"}


def test_quantised_layers_are_refused_by_name(tmp_path: Path) -> None:
    made = family(tmp_path)
    models = {}
    for i, name in enumerate(("base", "adapted", "instruct")):
        tensors = {**made.tensors[name], "model.layers.1.packed": torch.full((4,), i, dtype=torch.uint8)}
        models[name] = save_model(tmp_path / f"{name}-packed", tensors, getattr(made, name).tokenizer, tied=False)
    with pytest.raises(VocabTransferError, match=r"'model.layers.1.packed' is quantised \(U8\), so layers cannot"):
        propagate(models["base"], models["adapted"], models["instruct"], body_lambda=0.5)
    with pytest.raises(VocabTransferError, match=r"is quantised"):
        restore_layers(models["adapted"], models["instruct"], layers=1)
    propagate(models["base"], models["adapted"], models["instruct"])
