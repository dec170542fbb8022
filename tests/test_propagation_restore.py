"""Layers and chat tokens of an adapted chat model restored from the chat model before (ElChat)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from propagation_samples import (
    INPUT,
    MARKERS,
    OUTPUT,
    TEMPLATE,
    adapted_chat,
    arc,
    chat_tokenizer,
    load_all,
    save_model,
    snapshot,
    tensors_of,
)
from safetensors.torch import save_file
from transformers import AutoTokenizer

from vocabtransfer.checkpoint import Checkpoint, shards
from vocabtransfer.checkpoint.tensors import read_shard
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.propagation import restore_layers
from vocabtransfer.propagation.restore import outer_layers, slerp

LAYERS = 5
TABLES = (INPUT, OUTPUT)


def models(
    folder: Path, *, tied: bool = False, dtype: torch.dtype = torch.float64, markers: tuple[str, ...] = MARKERS
) -> tuple[Checkpoint, Checkpoint]:
    new, old = adapted_chat(markers), chat_tokenizer()
    sizes = {"tied": tied, "dtype": dtype, "layers": LAYERS}
    adapted = save_model(folder / "adapted", tensors_of(len(new), seed=1, **sizes), new, tied=tied, shards=8)  # type: ignore[arg-type]
    original = save_model(folder / "chat", tensors_of(len(old), seed=2, **sizes), old, tied=tied, shards=8)  # type: ignore[arg-type]
    return adapted, original


def layer_of(name: str) -> int | None:
    return int(name.split(".")[2]) if name.startswith("model.layers.") else None


@pytest.mark.parametrize("tied", [True, False])
def test_outer_layers_go_part_of_the_way_back(tied: bool, tmp_path: Path) -> None:
    adapted, original = models(tmp_path, tied=tied)
    ours, theirs = load_all(adapted.path), load_all(original.path)
    result = restore_layers(adapted, original, layers=2, weight=0.3)
    written = load_all(result.save(tmp_path / "out").path)
    assert written.keys() == ours.keys()
    for name in ours.keys() - set(TABLES):
        if layer_of(name) in (0, 1, 3, 4):
            expected = arc(ours[name].numpy(), theirs[name].numpy(), 0.3)
            np.testing.assert_allclose(written[name], expected, rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(written[name], ours[name]), name
    assert {layer_of(name) for name in result.facts["cosines"]} == {0, 1, 3, 4}
    new, old = adapted.tokenizer.get_vocab(), original.tokenizer.get_vocab()
    special = ["<s>", "</s>", "<pad>", "<unk>", *MARKERS]
    for name in TABLES[: 1 if tied else 2]:
        for token, i in new.items():
            assert torch.equal(written[name][i], theirs[name][old[token]] if token in special else ours[name][i])
    assert result.facts["rows_restored"] == 6
    assert json.loads((tmp_path / "out" / "restore.json").read_text()) == result.facts


def test_the_ends_of_the_way(tmp_path: Path) -> None:
    adapted, original = models(tmp_path, dtype=torch.bfloat16)
    ours, theirs = load_all(adapted.path), load_all(original.path)
    none = restore_layers(adapted, original, layers=2, weight=0.0)
    assert not none.changes
    whole = load_all(restore_layers(adapted, original, layers=LAYERS, weight=1.0).save(tmp_path / "whole").path)
    for name in ours.keys() - set(TABLES):
        assert torch.equal(whole[name], ours[name] if layer_of(name) is None else theirs[name]), name


def test_the_chat_format_comes_back(tmp_path: Path) -> None:
    adapted, original = models(tmp_path, dtype=torch.float32, markers=(MARKERS[0],))
    result = restore_layers(adapted, original)
    assert result.joined.appended == (MARKERS[1],)
    tokenizer = AutoTokenizer.from_pretrained(result.save(tmp_path / "out").path)
    assert tokenizer.chat_template == TEMPLATE and tokenizer.eos_token == MARKERS[1]
    written, theirs = load_all(tmp_path / "out"), load_all(original.path)
    place = original.tokenizer.convert_tokens_to_ids(MARKERS[1])
    assert torch.equal(written[INPUT][len(adapted.vocabulary)], theirs[INPUT][place])


def test_rows_may_stay(tmp_path: Path) -> None:
    adapted, original = models(tmp_path, markers=())
    result = restore_layers(adapted, original, layers=1, template_rows=False)
    written = load_all(result.save(tmp_path / "out").path)
    assert torch.equal(written[INPUT], load_all(adapted.path)[INPUT]) and result.facts["rows_restored"] == 0


def test_middle_shards_are_linked_and_runs_are_alike(tmp_path: Path) -> None:
    adapted, original = models(tmp_path, dtype=torch.bfloat16)
    report = restore_layers(adapted, original, layers=1).save(tmp_path / "out")
    assert report.bytes_linked > 0
    restore_layers(adapted, original, layers=1).save(tmp_path / "again")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "again")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 5),
    weight=st.floats(0, 1),
    block=st.integers(1, 30),
    seed=st.integers(0, 10**6),
)
def test_slerp(
    rows: int, width: int, weight: float, block: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the arc: norms of unit tensors stay 1, the angle is divided as the weight says, blocks do not show."""
    monkeypatch.setattr(shards, "BLOCK_ELEMENTS", block)
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(rows, width, generator=generator).double() for _ in range(2))
    save_file({"a": first / first.norm(), "b": second / second.norm()}, tmp_path / "pair.safetensors")
    infos = {info.name: info for info in read_shard(tmp_path / "pair.safetensors").tensors}
    found = slerp(infos["a"], infos["b"], weight)
    result = torch.cat([found(start, stop) for start, stop in shards.row_blocks((rows, width))])
    cosine = float((first * second).sum() / first.norm() / second.norm())
    assert found.cosine == pytest.approx(cosine, abs=1e-12)
    if abs(cosine) > 0.9995:
        straight = (1 - weight) * first / first.norm() + weight * second / second.norm()
        torch.testing.assert_close(result, straight, rtol=1e-9, atol=1e-9)
    else:
        assert float(result.norm()) == pytest.approx(1.0, abs=1e-9)
        travelled = float((result * first).sum() / first.norm())
        assert travelled == pytest.approx(math.cos(weight * math.acos(cosine)), abs=1e-9)


def test_zero_and_parallel_tensors_take_the_straight_line(tmp_path: Path) -> None:
    tensors = {"zero": torch.zeros(3), "one": torch.ones(3), "two": 2 * torch.ones(3)}
    save_file(tensors, tmp_path / "t.safetensors")
    infos = {info.name: info for info in read_shard(tmp_path / "t.safetensors").tensors}
    assert slerp(infos["zero"], infos["one"], 0.25)(0, 3).tolist() == [0.25] * 3
    assert slerp(infos["one"], infos["two"], 0.25)(0, 3).tolist() == [1.25] * 3
    assert slerp(infos["zero"], infos["zero"], 0.5)(0, 3).tolist() == [0.0] * 3


def test_stacks_are_told_apart(tmp_path: Path) -> None:
    adapted, _ = models(tmp_path)
    names = {
        "encoder.block.0.layer.1.w": 1, "encoder.block.5.layer.0.w": 1, "encoder.block.3.layer.0.w": 0,
        "decoder.block.0.layer.2.w": 1, "decoder.block.1.layer.2.w": 0, "decoder.block.2.layer.2.w": 1,
        "h.0.attn.w": 1, "h.4.attn.w": 0, "h.9.attn.w": 1, "model.norm.weight": 0, "rotary.0.w": 0,
    }  # fmt: skip
    info = adapted.tensors["model.norm.weight"]
    fields = {"tensors": dict.fromkeys(names, info), "layout": adapted.layout, "name": "stacks"}
    made = Checkpoint(**{**vars(adapted), **fields})
    assert outer_layers(made, 1) == sorted(name for name, outer in names.items() if outer)
    with pytest.raises(UsageError, match=r"stacks has 3 layers in 'decoder.block', so 4 cannot be restored"):
        outer_layers(made, 4)


def test_refusals(tmp_path: Path) -> None:
    adapted, original = models(tmp_path)
    for options, message in (
        ({"layers": 6}, "adapted has 5 layers in 'model.layers', so 6 cannot be restored"),
        ({"layers": -1}, "the number of layers to restore is 0 or more, not -1"),
        ({"weight": 1.5}, "is a number from 0 to 1, not 1.5"),
        ({"weight": float("nan")}, "is a number from 0 to 1, not nan"),
    ):
        with pytest.raises(UsageError, match=message):
            restore_layers(adapted, original, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"so there is nothing to restore: give the adapted model and the chat model"):
        restore_layers(original, original)
    fewer = tensors_of(len(chat_tokenizer()), tied=False, seed=3, layers=4)
    other = save_model(tmp_path / "fewer", fewer, chat_tokenizer(), tied=False)
    with pytest.raises(VocabTransferError, match=r"has a tensor 'model.layers.4.* that the original model fewer lacks"):
        restore_layers(adapted, other)
    with pytest.raises(VocabTransferError, match=r"overlap: choose another output"):
        restore_layers(adapted, original).save(original.path, overwrite=True)
