"""GGUF export: what is written reads back as the same tensors, ids and logits; what cannot be said is refused."""

import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from thinned import first_of
from tokenizer_samples import first_tokens
from tokenizers import AddedToken, Regex, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

from vocabtransfer import export_gguf, open_checkpoint
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.gguf_file import read_gguf
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer

TEXTS = (
    "The year 2024: it's 3,141.59!",
    "Ул яңа китап укый.\n\n  def f(x):\n\treturn x",
    "नमस्ते दुनिया · 你好 · مرحبا · สวัสดี · 😀👩‍👩‍👧  ",
    "<|im_start|>user\nHallo<|im_end|>",
)


def _model(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, kind: str = "llama", **settings: object) -> Checkpoint:
    torch.manual_seed(0)
    sizes = {
        **{"vocab_size": len(tokenizer) + 8, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5},
        **settings,
    }
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        model = AutoModelForCausalLM.from_config(Qwen3Config(**sizes))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return open_checkpoint(tmp_path / "model")


@pytest.fixture
def tokenizer(smollm2_folder: Path) -> PreTrainedTokenizerFast:
    """The rules of a real tokenizer, and its first tokens: a table of all of them says no more and takes seconds."""
    return first_tokens(load_tokenizer(smollm2_folder), 2_000)


@pytest.mark.parametrize(
    ("kind", "tied"), first_of(product(["llama", "qwen3"], [True, False]), ("llama", True), ("qwen3", False))
)
def test_written_file_reads_back_as_the_same_model(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, kind: str, tied: bool
) -> None:
    source = _model(tmp_path, tokenizer, kind, tie_word_embeddings=tied)
    report = export_gguf(source, tmp_path / "out.gguf", kind="f32")
    back = open_checkpoint(report.path)
    assert report.pre_tokenizer == "smollm"
    for name in back.tensors:
        assert torch.equal(back.read(name), source.read(name)), name
    for text in TEXTS:
        assert back.tokenizer(text)["input_ids"] == source.tokenizer(text)["input_ids"]
    ids = torch.tensor([source.tokenizer(TEXTS[1])["input_ids"]])
    ours, theirs = (AutoModelForCausalLM.from_pretrained(c.path, dtype=torch.float32) for c in (back, source))
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)


def test_types_are_stored_as_asked(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = _model(tmp_path, tokenizer)
    for kind, tolerance in (("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 2e-2)):
        file = read_gguf(export_gguf(source, tmp_path / f"{kind}.gguf", kind=kind).path)
        assert {t.kind for t in file.tensors.values() if len(t.shape) > 1} == {kind.upper()}
        assert {t.kind for t in file.tensors.values() if len(t.shape) == 1} == {"F32"}
        table = torch.from_numpy(file.values("token_embd.weight"))
        expected = source.input_table().float()
        assert (table - expected).abs().max() <= tolerance * expected.abs().max()


def test_padding_and_roles(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = _model(tmp_path, tokenizer)
    fields = read_gguf(export_gguf(source, tmp_path / "out.gguf").path).fields
    assert len(fields["tokenizer.ggml.tokens"]) == source.layout.rows
    assert fields["tokenizer.ggml.token_type"][-8:] == [5] * 8
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template


def test_rules_without_a_name_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    odd = pre_tokenizers.Split(Regex(r"\p{L}{1,3}"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([odd, byte_level])
    source = _model(tmp_path, tokenizer)
    with pytest.raises(VocabTransferError, match=r"no name for: \\p\{L\}\{1,3\}"):
        export_gguf(source, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_an_unknown_name_and_a_body_beside_a_type_are_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = _model(tmp_path, tokenizer)
    with pytest.raises(UsageError, match="'nobody'"):
        export_gguf(source, tmp_path / "out.gguf", pre_tokenizer="nobody")
    with pytest.raises(UsageError, match="auto"):
        export_gguf(source, tmp_path / "out.gguf", kind="f16", body=tmp_path / "body.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.slow
def test_tensors_of_a_gguf_source_are_copied_as_they_are_stored(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    first = export_gguf(_model(tmp_path, tokenizer), tmp_path / "first.gguf", kind="q8_0")
    opened = open_checkpoint(first.path)
    again = export_gguf(first.path, tmp_path / "again.gguf")
    assert again.kept == again.tensors
    before, after = read_gguf(first.path), read_gguf(again.path)
    for name, tensor in before.tensors.items():
        other = after.tensors[name]
        assert (tensor.kind, tensor.shape) == (other.kind, other.shape)
        assert first.path.read_bytes()[tensor.begin : tensor.end] == again.path.read_bytes()[other.begin : other.end], (
            name
        )
    # A table of another vocabulary is new; everything else is still the source's.
    weights = load_file(opened.path / "model.safetensors")
    weights["model.embed_tokens.weight"] += 1
    folder = tmp_path / "changed"
    shutil.copytree(opened.path, folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    changed = export_gguf(folder, tmp_path / "changed.gguf", body=first.path)
    assert changed.kept == changed.tensors - 1
    assert {t.kind for t in read_gguf(changed.path).tensors.values() if len(t.shape) > 1} == {"Q8_0"}


def test_other_refusals(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = _model(tmp_path, tokenizer)
    with pytest.raises(UsageError, match="q3"):
        export_gguf(source, tmp_path / "out.gguf", kind="q3")
    (tmp_path / "there.gguf").write_text("mine")
    with pytest.raises(VocabTransferError, match="exists"):
        export_gguf(source, tmp_path / "there.gguf")
    assert (tmp_path / "there.gguf").read_text() == "mine"
    source.config.pop("rope_parameters", None)
    for scaling, named in (
        ({"rope_type": "longrope", "factor": 4.0}, "longrope"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16}, "bounds"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "a part of each head"),
    ):
        source.config["rope_scaling"] = scaling
        with pytest.raises(VocabTransferError, match=named):
            export_gguf(source, tmp_path / "out.gguf")
    source.config["model_type"] = "mamba"
    with pytest.raises(VocabTransferError, match="mamba"):
        export_gguf(source, tmp_path / "out.gguf")


def test_what_other_families_have_and_llama_cpp_lacks_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = len(tokenizer)
    sizes = {
        **{"vocab_size": rows, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16},
        **{"num_hidden_layers": 2, "num_key_value_heads": 2},
    }
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
    for config, named in (
        (Qwen3MoeConfig(norm_topk_prob=False, **experts, **sizes), "weighs its experts"),
        (Qwen3MoeConfig(norm_topk_prob=True, mlp_only_layers=[0], **experts, **sizes), "layers without experts"),
        (Gemma2Config(query_pre_attn_scalar=64, **sizes), "scales attention"),
        (Gemma2Config(query_pre_attn_scalar=16, layer_types=["full_attention"] * 2, **sizes), "sliding window"),
        (Qwen3Config(hidden_act="gelu", **sizes), "'gelu'"),
    ):
        folder = tmp_path / named.replace(" ", "-")
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        with pytest.raises(VocabTransferError, match=named):
            export_gguf(folder, tmp_path / "out.gguf")
        assert not (tmp_path / "out.gguf").exists()


def test_added_tokens_take_the_space_behind_them_as_in_phi3_or_are_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = _model(tmp_path, tokenizer)
    assert read_gguf(export_gguf(source, tmp_path / "a.gguf").path).fields["general.name"] == "model"
    folder = tmp_path / "phi-3-like"
    shutil.copytree(source.path, folder)
    shutil.copytree(source.path, tmp_path / "phi-3-other")
    fields = read_gguf(export_gguf(tmp_path / "phi-3-other", tmp_path / "b.gguf").path).fields
    assert fields["general.name"] == "phi 3-other"  # llama.cpp looks for the name, and would strip spaces
    tokenizer.add_tokens([AddedToken("<|odd|>", special=True, rstrip=True)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(VocabTransferError, match=r"'<\|odd\|>'"):
        export_gguf(folder, tmp_path / "c.gguf")
