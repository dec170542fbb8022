"""What `write_checkpoint` and `open_checkpoint` refuse: one sentence, and nothing left behind or changed."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vocabtransfer.checkpoint import Checkpoint, VocabTensor, open_checkpoint, rewrite, verify, write_checkpoint
from vocabtransfer.checkpoint.rewrite import Rows
from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.save import save_tokenizer

OLD = toy_tokenizer(["hello", " world"])
NEW = toy_tokenizer(["сәлам", " дөнья", "китап"], seed=3)
CONFIG = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 48},
    **{"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "dtype": "bfloat16", "vocab_size": len(OLD)},
}


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "models" / "source"
    write_hollow_checkpoint(folder, CONFIG, shard_bytes=24_000, seed=1)
    save_tokenizer(OLD, folder)
    return open_checkpoint(folder)


def ramp(_tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
    """Rows that say which they are."""
    return torch.arange(start, stop, dtype=torch.float32)[:, None].expand(-1, 32)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(source: Checkpoint, target: Path, **options: Any) -> str:
    """The message of a refused write; nothing may have appeared or changed around the target."""
    parent = target.parent
    before = snapshot(parent), sorted(parent.rglob("*"))
    with pytest.raises(VocabTransferError) as caught:
        write_checkpoint(source, target, **{"tokenizer": NEW, "rows": ramp, **options})
    assert (snapshot(parent), sorted(parent.rglob("*"))) == before
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_refuses_bad_targets(source: Checkpoint, tmp_path: Path) -> None:
    assert "overlap" in refused(source, source.path)
    assert "overlap" in refused(source, source.path / "inside")
    assert "overlap" in refused(source, source.path.parent, overwrite=True)
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(source, tmp_path / "file", overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    assert "exists already" in refused(source, tmp_path / "full")
    assert "was not written by vocabtransfer" in refused(source, tmp_path / "full", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "full")
    assert "symbolic link" in refused(source, tmp_path / "link", overwrite=True)
    (tmp_path / "empty").mkdir()
    write_checkpoint(source, tmp_path / "empty", tokenizer=NEW, rows=ramp)


def test_refuses_a_full_disk(source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(10**9, 10**9, 12_345))
    message = refused(source, tmp_path / "target")
    assert "0.00 GB free" in message and "needs" in message


def test_disk_that_fills_up_while_writing(source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any, **_kwargs: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full, raising=False)
    assert "the disk is full" in refused(source, tmp_path / "target")


def test_refuses_values_that_are_not_finite(source: Checkpoint, tmp_path: Path) -> None:
    def spoil(value: float) -> Rows:
        def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
            values = ramp(tensor, start, stop).clone()
            if tensor.part == "output":
                values[37, 5] = value
            return values

        return rows

    for value in (float("nan"), float("inf"), 3.4e38):  # the last one is finite, but not in bfloat16
        message = refused(source, tmp_path / "target", rows=spoil(value))
        assert "row 37 of the new 'lm_head.weight' is not finite" in message


def test_refuses_names_of_extra_files(source: Checkpoint, tmp_path: Path) -> None:
    for name in ("config.json", "../x", "/etc/x", "tokenizer.json", source.shards[0].file.name, "."):
        with pytest.raises(UsageError, match="extra file"):
            write_checkpoint(source, tmp_path / "t", tokenizer=NEW, rows=ramp, extra_files={name: b""})
    for multiple in (0, -8):
        with pytest.raises(UsageError, match="multiple"):
            write_checkpoint(source, tmp_path / "t", tokenizer=NEW, rows=ramp, pad_to_multiple_of=multiple)
    assert not (tmp_path / "t").exists()


def test_refuses_a_tokenizer_that_is_larger_than_the_table(source: Checkpoint, tmp_path: Path) -> None:
    save_tokenizer(toy_tokenizer(["hello", " world", "too", "many"]), source.path)
    message = refused(open_checkpoint(source.path), tmp_path / "target")
    assert "does not fit" in message and f"{len(OLD)} rows" in message


@pytest.mark.parametrize("kind", ["table", "kept", "tokenizer", "template", "config"])
def test_verification_finds_what_writing_broke(
    kind: str, source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage the staged folder just before it is verified: it must not be published."""
    honest = verify.verify_checkpoint

    def damaged(folder: Path, *args: Any) -> None:
        weights = sorted(file for file in folder.glob("*.safetensors") if file.stat().st_nlink == 1)
        if kind in ("table", "kept"):
            tables = {"model.embed_tokens.weight", "lm_head.weight"}
            tensors = load_file(weights[0])
            name = next(name for name in tensors if (name in tables) == (kind == "table"))
            tensors[name].view(torch.int16)[-1] ^= 1
            save_file(tensors, weights[0], {"format": "pt"})
        elif kind == "tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
            save_tokenizer(OLD, folder)
        elif kind == "template":
            (folder / "chat_template.jinja").write_text("{{ messages }}")
        else:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
        honest(folder, *args)

    monkeypatch.setattr(rewrite, "verify_checkpoint", damaged)
    message = refused(source, tmp_path / "target")
    assert {
        "table": "'model.embed_tokens.weight' on disk are not those that were written",
        "kept": "differs from the source's",
        "tokenizer": "other ids",
        "template": "chat template",
        "config": "vocab_size 5",
    }[kind] in message


def test_corrupt_and_missing_shards(source: Checkpoint) -> None:
    file = source.shards[1].file
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(VocabTransferError, match=file.name):
        open_checkpoint(source.path)
    file.unlink()
    with pytest.raises(VocabTransferError, match=f"names {file.name}, which is not in the folder"):
        open_checkpoint(source.path)
    (source.path / "config.json").unlink()
    with pytest.raises(VocabTransferError, match=r"no config\.json"):
        open_checkpoint(Path(source.path))
