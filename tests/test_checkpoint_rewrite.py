"""Writing a checkpoint: kept bytes identical, new tables as given, links, padding, and every refusal."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import (
    Checkpoint,
    VocabTensor,
    open_checkpoint,
    plan_checkpoint,
    write_checkpoint,
)
from vocabtransfer.checkpoint import shards as shard_writer
from vocabtransfer.checkpoint.synthetic import LLAMA3_70B, toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files import copying
from vocabtransfer.tokenization.save import save_tokenizer

OLD = toy_tokenizer(["hello", " world"])
NEW = toy_tokenizer(["сәлам", " дөнья", "китап"], seed=3)
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
ANY = [*FLOATS, torch.int64, torch.int8, torch.bool]
SMALL_LLAMA = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48},
    **{"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "dtype": "bfloat16", "vocab_size": len(OLD)},
}


def save_source(folder: Path, shards: list[dict[str, torch.Tensor]], config: dict[str, Any]) -> Checkpoint:
    folder.mkdir(parents=True)
    names = [f"model-{i}.safetensors" for i in range(len(shards))] if len(shards) > 1 else ["model.safetensors"]
    for name, tensors in zip(names, shards, strict=True):
        save_file(tensors, folder / name, {"format": "pt", "note": "kept"})
    if len(shards) > 1:
        weight_map = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(OLD, folder)
    return open_checkpoint(folder)


def llama(folder: Path, *, tied: bool, shard_bytes: int = 10**9) -> Checkpoint:
    write_hollow_checkpoint(folder, {**SMALL_LLAMA, "tie_word_embeddings": tied}, shard_bytes=shard_bytes, seed=1)
    save_tokenizer(OLD, folder)
    return open_checkpoint(folder)


def ramp(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
    """Rows that say which they are: row number in every column, the head's half as large."""
    values = torch.arange(start, stop, dtype=torch.float32) / (2.0 if tensor.part == "output" else 1.0)
    return values if tensor.part == "output_bias" else values[:, None].expand(-1, 32)


def as_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found = load_file(file)
        assert not tensors.keys() & found.keys(), "a tensor may be in one file only"
        tensors |= found
    return tensors


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


KEPT = st.dictionaries(
    st.text("abcxyz._0123456789é", min_size=1, max_size=10).map(lambda name: f"body.{name}"),
    st.tuples(st.sampled_from(ANY), st.lists(st.integers(0, 6), max_size=3).map(tuple), st.integers(0, 3)),
    max_size=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kept=KEPT,
    places=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    dtypes=st.tuples(*(st.sampled_from(FLOATS) for _ in range(3))),
    tied=st.booleans(),
    multiple=st.sampled_from([1, 8, 64]),
    link=st.sampled_from(["hard", "copy"]),
    block=st.sampled_from([32, 7 * 32, 1 << 22]),
    changed=st.sets(st.integers(0, 9)),
)
def test_any_checkpoint(
    kept: dict[str, Any],
    places: tuple[int, int, int],
    dtypes: tuple[torch.dtype, ...],
    tied: bool,
    multiple: int,
    link: Any,
    block: int,
    changed: set[int],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    monkeypatch.setattr(shard_writer, "BLOCK_ELEMENTS", block)
    generator = torch.Generator().manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{} for _ in range(4)]
    shards[places[0]]["model.embed_tokens.weight"] = torch.randn(len(OLD), 32).to(dtypes[0])
    if not tied:
        shards[places[1]]["lm_head.weight"] = torch.randn(len(OLD), 32).to(dtypes[1])
        shards[places[2]]["lm_head.bias"] = torch.randn(len(OLD)).to(dtypes[2])
    for name, (dtype, shape, place) in kept.items():
        shards[place][name] = torch.randint(0, 2, shape, generator=generator).to(dtype)
    shards = [shard for shard in shards if shard]
    config = {"model_type": "something_new", "vocab_size": len(OLD), "tie_word_embeddings": tied}
    source = save_source(folder / "source", shards, config)
    before = snapshot(folder / "source")
    values = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype)
        for i, (name, (dtype, shape, _)) in enumerate(sorted(kept.items()))
        if i in changed
    }
    plan = plan_checkpoint(
        source,
        folder / "target",
        vocabulary_size=len(NEW),
        changed=values,
        link=link,
        pad_to_multiple_of=multiple,
    )
    report = write_checkpoint(
        source,
        folder / "target",
        tokenizer=NEW,
        rows=ramp,
        changes={
            name: lambda a, b, value=value: value.reshape(value.shape or 1)[a:b] for name, value in values.items()
        },
        link=link,
        pad_to_multiple_of=multiple,
    )
    assert set(report.tensors_rewritten) == {*values, *(tensor.name for tensor in source.layout.tensors)}
    assert snapshot(folder / "source") == before
    written = load_all(folder / "target")
    rows = -(-len(NEW) // multiple) * multiple
    assert report.padded_rows == plan.padded_rows == rows - len(NEW)
    old = {name: value for shard in shards for name, value in shard.items()}
    assert written.keys() == old.keys()
    for name, value in (old | values).items():
        part = {"model.embed_tokens.weight": "input", "lm_head.weight": "output", "lm_head.bias": "output_bias"}.get(
            name
        )
        assert written[name].dtype == value.dtype
        if part is None:
            assert written[name].shape == value.shape and as_bytes(written[name]) == as_bytes(value)
            continue
        expected = ramp(VocabTensor(name, part, 0), 0, len(NEW))
        assert torch.equal(written[name][: len(NEW)], expected.to(value.dtype))
        padding = written[name][len(NEW) :].float()
        assert len(padding) == rows - len(NEW)
        if part == "output_bias":
            assert (padding < -9e3).all() and torch.isfinite(padding).all()
        elif len(padding):
            torch.testing.assert_close(padding[0], expected.to(value.dtype).float().mean(0), rtol=0.01, atol=0)
    if len(shards) > 1:
        index = json.loads((folder / "target" / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == old.keys()
        assert index["metadata"]["total_size"] == sum(v.numel() * v.element_size() for v in written.values())
    for file in plan.files:
        made = folder / "target" / file.name
        assert made.stat().st_size == file.bytes
        assert made.samefile(file.source) == (file.action == "link" and link == "hard")
    shutil.rmtree(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_untouched_shards_are_linked_and_the_model_loads(tied: bool, tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=tied, shard_bytes=12_000)
    plan = plan_checkpoint(source, tmp_path / "target", vocabulary_size=len(NEW))
    report = write_checkpoint(source, tmp_path / "target", tokenizer=NEW, rows=ramp)
    actions = {file.name: file.action for file in plan.files}
    assert list(actions.values()).count("rewrite") == (1 if tied else 2) and "link" in actions.values()
    assert report.bytes_linked == plan.bytes_linked > 0
    assert any("hard links" in note for note in report.notes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    assert model.get_input_embeddings().weight.shape == (len(NEW), 32)
    tables = sum(source.tensors[t.name].nbytes for t in source.layout.tensors)
    assert plan.bytes_least == tables * len(NEW) // len(OLD)
    copied = write_checkpoint(source, tmp_path / "copy", tokenizer=NEW, rows=ramp, link="copy")
    assert copied.bytes_linked == 0
    weights = "*.safetensors"
    for one, two in zip(
        sorted((tmp_path / "target").glob(weights)), sorted((tmp_path / "copy").glob(weights)), strict=True
    ):
        assert one.read_bytes() == two.read_bytes() and not one.samefile(two)


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=False, shard_bytes=12_000)
    for name in ("a", "b"):
        write_checkpoint(source, tmp_path / name, tokenizer=NEW, rows=ramp, extra_files={"x/report.txt": b"hi"})
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_float32_is_rounded_to_nearest(tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=True)
    values = torch.randn(len(NEW), 32, generator=torch.Generator().manual_seed(2))
    write_checkpoint(source, tmp_path / "target", tokenizer=NEW, rows=lambda t, a, b: values[a:b])
    table = load_all(tmp_path / "target")["model.embed_tokens.weight"]
    assert table.dtype == torch.bfloat16 and torch.equal(table, values.to(torch.bfloat16))
    assert (table.float() - values).abs().max() <= (values.abs() * 2**-8).max()


def test_padding_never_wins(tmp_path: Path) -> None:
    """Greedy decoding picks a padding row for no hidden state, although there is neither bias nor mask here."""
    source = llama(tmp_path / "source", tied=True)
    values = torch.randn(len(NEW), 32, generator=torch.Generator().manual_seed(2)) - 0.5
    write_checkpoint(
        source, tmp_path / "target", tokenizer=NEW, rows=lambda t, a, b: values[a:b], pad_to_multiple_of=512
    )
    table = load_all(tmp_path / "target")["model.embed_tokens.weight"].float()
    assert len(table) == 512
    states = torch.randn(2000, 32, generator=torch.Generator().manual_seed(3))
    assert int((states @ table.T).argmax(1).max()) < len(NEW)
    generation = json.loads((tmp_path / "target" / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == list(range(len(NEW), 512))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "target").eval()
    with torch.no_grad():
        model.get_output_embeddings().weight[len(NEW) :] += 100  # even if training should raise them
        made = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=8, do_sample=True, pad_token_id=0)
    assert int(made.max()) < len(NEW)


def test_a_result_is_a_source_again(tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=True, shard_bytes=12_000)
    write_checkpoint(source, tmp_path / "once", tokenizer=NEW, rows=ramp, pad_to_multiple_of=64)
    once = open_checkpoint(tmp_path / "once")
    trained = once.trained_rows()
    assert len(trained) % 64 == 0 and trained[2 : len(NEW)].all() and not trained[len(NEW) :].any()
    report = write_checkpoint(once, tmp_path / "twice", tokenizer=OLD, rows=ramp)
    generation = json.loads((tmp_path / "twice" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "suppress_tokens": None}
    assert not [note for note in report.notes if "dropped" in note]
    shutil.rmtree(tmp_path / "once")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "twice").eval()
    assert model.generate(torch.tensor([[1, 2]]), max_new_tokens=3, min_new_tokens=3).shape == (1, 5)


def test_holes_in_the_new_ids_are_suppressed(tmp_path: Path) -> None:
    document = json.loads(NEW.backend_tokenizer.to_str())
    vocabulary = document["model"]["vocab"]
    last = max(vocabulary, key=lambda token: vocabulary[token] if token not in NEW.all_special_tokens else -1)
    hole = vocabulary[last]
    vocabulary[last] = len(NEW) + 4
    backend = type(NEW.backend_tokenizer).from_str(json.dumps(document))
    new = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    source = llama(tmp_path / "source", tied=True)
    write_checkpoint(source, tmp_path / "target", tokenizer=new, rows=ramp)
    generation = json.loads((tmp_path / "target" / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [hole, *range(len(NEW), len(NEW) + 4)]
    assert json.loads((tmp_path / "target" / "config.json").read_text())["vocab_size"] == len(NEW) + 5


def test_which_files_come_along(tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=True, shard_bytes=12_000)
    kept = {
        **{
            "LICENSE": "l",
            "LICENSE.txt": "l",
            "NOTICE.md": "n",
            "USE_POLICY.md": "u",
            "preprocessor_config.json": "{}",
        },
        **{"config_sentence_transformers.json": "{}", "sentence_bert_config.json": "{}", "1_Pooling/config.json": "{}"},
        "modules.json": json.dumps([{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}]),
    }
    dropped = {
        **{"README.md": "r", "vocab.json": "{}", "merges.txt": "", "tokenizer.model": "x", "added_tokens.json": "{}"},
        **{"pytorch_model.bin": "b", "optimizer.pt": "o", "model.onnx": "x", "x.gguf": "g", "training_args.bin": "t"},
        **{"modeling_x.py": "raise SystemExit", "chat_template.jinja": "OLD", "onnx/model.onnx": "x"},
    }
    for name, text in (kept | dropped).items():
        (source.path / name).parent.mkdir(exist_ok=True)
        (source.path / name).write_text(text)
    plan = plan_checkpoint(source, tmp_path / "target", vocabulary_size=len(NEW))
    write_checkpoint(source, tmp_path / "target", tokenizer=NEW, rows=ramp, extra_files={"README.md": b"new card"})
    made = snapshot(tmp_path / "target")
    for name, text in kept.items():
        assert made.pop(name) == text.encode()
        assert not (tmp_path / "target" / name).samefile(source.path / name)
    assert made.pop("README.md") == b"new card"
    assert not dropped.keys() & made.keys()
    assert {name for name in dropped if "/" not in name} <= set(plan.left_out)


def test_modules_that_point_outside(tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=True)
    (source.path / "modules.json").write_text(json.dumps([{"path": "../secret"}]))
    with pytest.raises(VocabTransferError, match="outside"):
        write_checkpoint(source, tmp_path / "target", tokenizer=NEW, rows=ramp)


def test_a_stale_duplicate_in_another_shard_disappears(tmp_path: Path) -> None:
    """transformers loads every tensor of every listed file, whatever the index says: a leftover table would win."""
    source = llama(tmp_path / "source", tied=True, shard_bytes=12_000)
    other = next(s.file for s in source.shards if "model.embed_tokens.weight" not in {t.name for t in s.tensors})
    save_file(
        {**load_file(other), "model.embed_tokens.weight": torch.full((len(OLD), 32), 9.0)}, other, {"format": "pt"}
    )
    source = open_checkpoint(source.path)
    write_checkpoint(source, tmp_path / "target", tokenizer=NEW, rows=ramp)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    assert torch.equal(model.get_input_embeddings().weight[:, 0].float(), torch.arange(len(NEW)).bfloat16().float())
    assert load_all(tmp_path / "target").keys() == source.tensors.keys()


def test_a_single_file_of_another_name(tmp_path: Path) -> None:
    source = llama(tmp_path / "source", tied=True)
    (source.path / "model.safetensors").rename(source.path / "weights.safetensors")
    write_checkpoint(open_checkpoint(source.path), tmp_path / "target", tokenizer=NEW, rows=ramp)
    assert [file.name for file in (tmp_path / "target").glob("*.safetensors")] == ["model.safetensors"]


def test_hub_cache_symlinks_are_followed(tmp_path: Path) -> None:
    source = llama(tmp_path / "blobs", tied=True, shard_bytes=12_000)
    snapshot_folder = tmp_path / "snapshots" / "abc"
    snapshot_folder.mkdir(parents=True)
    for file in source.path.iterdir():
        (snapshot_folder / file.name).symlink_to(os.path.relpath(file, snapshot_folder))
    before = snapshot(source.path)
    write_checkpoint(open_checkpoint(snapshot_folder), tmp_path / "target", tokenizer=NEW, rows=ramp)
    assert not any(path.is_symlink() for path in (tmp_path / "target").rglob("*"))
    assert snapshot(source.path) == before
    AutoModelForCausalLM.from_pretrained(tmp_path / "target")


def test_without_kernel_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = llama(tmp_path / "source", tied=True, shard_bytes=12_000)
    write_checkpoint(source, tmp_path / "usual", tokenizer=NEW, rows=ramp, link="copy")

    def refuse(*_args: Any, **_kwargs: Any) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(copying, "FALLBACK_BLOCK", 1000)
    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    write_checkpoint(source, tmp_path / "sendfile", tokenizer=NEW, rows=ramp, link="copy")
    monkeypatch.setattr(os, "sendfile", refuse, raising=False)
    write_checkpoint(source, tmp_path / "plain", tokenizer=NEW, rows=ramp, link="copy")
    assert snapshot(tmp_path / "usual") == snapshot(tmp_path / "sendfile") == snapshot(tmp_path / "plain")


def test_planning_a_70b_model_costs_nothing(tmp_path: Path) -> None:
    folder = write_hollow_checkpoint(tmp_path / "llama3-70b", LLAMA3_70B, shard_bytes=5 * 10**9)
    assert sum(file.stat().st_blocks * 512 for file in folder.iterdir()) < 1 << 20
    plan = plan_checkpoint(open_checkpoint(folder), tmp_path / "target", vocabulary_size=32_000)
    assert plan.bytes_least == 2 * 32_000 * 8192 * 2
    assert plan.bytes_linked + plan.bytes_written > 1.35e11
    assert [file.action for file in plan.files].count("rewrite") == 2 and len(plan.files) > 25
    assert not (tmp_path / "target").exists()
