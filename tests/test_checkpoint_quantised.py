"""Quantised bodies: tables are rewritten, the body keeps its bytes, and no package of the quantiser is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from build_samples import write_pairs
from safetensors.torch import load_file, save_file

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.running.load import cannot_run
from vocabtransfer.tokenization.save import save_tokenizer

TOKENIZER = toy_tokenizer(["hello", " world"])
NEW = toy_tokenizer(["китап", " өстәл", "hello"], seed=4)
ROWS, HIDDEN, INNER, LAYERS, GROUP = len(TOKENIZER), 64, 128, 2, 32
MATRICES = {
    **dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"), (HIDDEN, HIDDEN)),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (INNER, HIDDEN)),
    "mlp.down_proj": (HIDDEN, INNER),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True},
    "4 bits": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "8 bits": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}
Tensors = dict[str, torch.Tensor]


def packed(name: str, kind: str, out: int, into: int, made: torch.Generator) -> Tensors:
    """Return a weight as its quantiser stores it: names, shapes and dtypes of the published formats, random values."""

    def words(*shape: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31 - 1, shape, generator=made).to(torch.int32)

    def halves(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=made) * 0.02).half()

    groups = into // GROUP
    if kind == "gptq":
        order = torch.arange(into, dtype=torch.int32) // GROUP
        parts = {"qweight": words(into // 8, out), "qzeros": words(groups, out // 8), "g_idx": order}
        parts["scales"] = halves(groups, out)
    elif kind == "awq":
        parts = {"qweight": words(into, out // 8), "qzeros": words(groups, out // 8), "scales": halves(groups, out)}
    elif kind == "4 bits":
        state = json.dumps({"quant_type": "nf4", "blocksize": 64, "shape": [out, into], "dtype": "float16"}).encode()
        parts = {
            "weight": torch.randint(0, 255, (out * into // 2, 1), generator=made, dtype=torch.uint8),
            "weight.absmax": torch.rand(out * into // 64, generator=made),
            "weight.quant_map": torch.linspace(-1, 1, 16),
            "weight.quant_state.bitsandbytes__nf4": torch.frombuffer(bytearray(state), dtype=torch.uint8).clone(),
        }
    else:
        parts = {
            "weight": torch.randint(-128, 127, (out, into), generator=made, dtype=torch.int8),
            "SCB": torch.rand(out, generator=made),
            "weight_format": torch.tensor(0, dtype=torch.uint8),
        }
    return {f"{name}.{part}": value for part, value in parts.items()}


def quantised(folder: Path, kind: str, *, also: str = "") -> Path:
    """Write a Llama whose body, and the part named by ``also``, is quantised."""
    folder.mkdir(parents=True)
    made = torch.Generator().manual_seed(0)
    tensors: Tensors = {"model.norm.weight": torch.ones(HIDDEN).half()}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = torch.ones(HIDDEN).half()
        for name, (out, into) in MATRICES.items():
            tensors |= packed(prefix + name, kind, out, into, made)
    for name in ("model.embed_tokens", "lm_head"):
        if name == also:
            tensors |= packed(name, kind, ROWS, HIDDEN, made)
        else:
            tensors[f"{name}.weight"] = (torch.randn(ROWS, HIDDEN, generator=made) * 0.02).half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": ROWS, "hidden_size": HIDDEN},
        **{"intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "dtype": "float16"},
        **{"num_key_value_heads": 4, "tie_word_embeddings": False, "quantization_config": SETTINGS[kind]},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(TOKENIZER, folder)
    return folder


def request(source: Path, place: Path, **options: Any) -> BuildRequest:
    (place / "held.txt").write_text("мин яңа китапны укыдым\n", encoding="utf-8")
    return BuildRequest(
        source=str(source),
        target="tatar",
        parallel=(write_pairs(place / "pairs.tsv"),),
        held_out=(place / "held.txt",),
        vocab_size=310,
        output=place / "out",
        **options,
    )


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_quantised_body_is_built_without_the_quantisers_package(kind: str, tmp_path: Path) -> None:
    source = quantised(tmp_path / "source", kind)
    if not cannot_run(json.loads((source / "config.json").read_text())):
        pytest.skip("the quantiser's package is installed")
    result = build(request(source, tmp_path, method="trans_tokenization", calibrate=True))
    notes = " ".join(result.transfer.notes)
    assert "Frequencies were not calibrated: its body is quantised" in notes and "source was not scored" in notes
    assert result.proof is not None and "Nothing was generated: its body is quantised" in result.proof.note
    assert not result.facts["method"]["calibrated"] and result.facts["held_out"] is None
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    assert before.keys() == after.keys()
    for name in before.keys() - tables:
        assert before[name].dtype == after[name].dtype and torch.equal(before[name], after[name]), name
    new, copied = result.transfer.vocabulary, 0
    for i, string in enumerate(new.strings):
        old = TOKENIZER.get_vocab().get(string)
        if old is not None and result.transfer.token_map.row(i) == [(old, 1.0)]:
            copied += 1
            assert torch.equal(after["model.embed_tokens.weight"][i], before["model.embed_tokens.weight"][old])
    assert copied > 100
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert kept == SETTINGS[kind]


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("table", ["model.embed_tokens", "lm_head"])
def test_a_quantised_table_is_refused_by_name_before_anything_is_written(kind: str, table: str, tmp_path: Path) -> None:
    source = quantised(tmp_path / "source", kind, also=table)
    with pytest.raises(VocabTransferError, match=rf"'{table}\.[^']+'.*quantised"):
        open_checkpoint(source)
    with pytest.raises(VocabTransferError, match="quantised"):
        build(request(source, tmp_path))
    assert not (tmp_path / "out").exists()
