"""A streamed model gives what the whole model gives, bit for bit, with a layer or two of it in memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from vocabtransfer.checkpoint import read_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline import proof
from vocabtransfer.running import plan, streamed
from vocabtransfer.running.load import load_model
from vocabtransfer.running.settings import running_with
from vocabtransfer.running.streamed import open_streamed, run_together, stream_of
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.transfer import transfer
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_expand": 2, "mamba_chunk_size": 8}
GATED_DELTA = {
    **{"layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_num_key_heads": 2},
    **{"linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma3_text": {"sliding_window": 16, "layer_types": WINDOWS},
    "qwen3": {"tie_word_embeddings": True},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "mamba": {"state_size": 4, "expand": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "deepseek_v3": {
        **{**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
        **{"first_k_dense_replace": 1, "num_key_value_heads": 4, "head_dim": 4},
        **{"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8},
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16, "layer_types": WINDOWS},
    # Attention here and there between layers of another kind.
    "jamba": {
        **{"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
        **{"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 4, "mamba_expand": 2},
    },
    "bamba": {**MAMBA_2, "mamba_n_groups": 1, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        **{**MAMBA_2, "layer_types": ["mamba", "attention", "mamba"], "num_local_experts": 4},
        **{"num_experts_per_tok": 2, "shared_intermediate_size": 32},
    },
    "falcon_h1": {**MAMBA_2, "mamba_n_heads": 4, "mamba_d_ssm": 32, "mamba_n_groups": 1},
    "nemotron_h": {
        **{"layers_block_type": ["mamba", "attention", "moe"], "mamba_num_heads": 4, "mamba_head_dim": 8},
        **{"ssm_state_size": 8, "n_groups": 1, "chunk_size": 8, "moe_intermediate_size": 16},
        **{"moe_shared_expert_intermediate_size": 16},
    },
    "zamba2": {
        **{"layers_block_type": ["mamba", "hybrid", "mamba"], "hybrid_layer_ids": [1], "mamba_d_state": 8},
        **{"n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 8, "adapter_rank": 4, "num_mem_blocks": 1},
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    "qwen3_next": {**GATED_DELTA, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": GATED_DELTA,
    "minimax": {"num_local_experts": 4, "block_size": 8, "layer_types": GATED_DELTA["layer_types"]},
}
# Kinds whose bits are compared in bfloat16, too, every time; the others only in the slow suite.
BOTH = {"llama", "gemma3_text", "gpt2", "qwen3_moe", "mamba"}


def save_model(kind: str, folder: Path, **changes: Any) -> Path:
    config = CONFIG_MAPPING[kind](**{**SMALL, **KINDS[kind], **changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    save_tokenizer(toy_tokenizer([f"t{i}" for i in range(40)]), folder)
    return folder


def both(folder: Path, **options: Any) -> tuple[Any, Any]:
    dtype = options.get("dtype", torch.float32)
    whole = load_model(folder, dtype=dtype)
    config = AutoConfig.from_pretrained(folder)
    return whole, open_streamed(
        read_checkpoint(folder, folder.name),
        lambda: AutoModelForCausalLM.from_config(config, dtype=dtype),
        **options,
    )


def calls(model: Any, batches: list[torch.Tensor]) -> list[Any]:
    return [lambda ids=ids: model(input_ids=ids, use_cache=False).logits for ids in batches]


@pytest.fixture
def batches() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(3, 300, (2, 7 + i)) for i in range(4)]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, torch.float32) for kind in KINDS]
    + [pytest.param(kind, torch.bfloat16, marks=[] if kind in BOTH else pytest.mark.slow) for kind in KINDS],
)
def test_the_same_bits_as_the_whole_model(
    kind: str, dtype: torch.dtype, tmp_path: Path, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "TABLE_ELEMENTS", 100)  # also toy tables stay on the disk
    whole, lazy = both(save_model(kind, tmp_path), dtype=dtype)
    with torch.no_grad():
        expected = run_together(whole, calls(whole, batches))
        for _ in range(2):
            for one, other in zip(expected, run_together(lazy, calls(lazy, batches)), strict=True):
                assert torch.equal(one, other)
    stream = stream_of(lazy)
    assert stream is not None and len(stream.units) >= 3
    assert not any(unit.loaded and not unit.kept for unit in stream.units)


def test_each_layer_is_read_once_for_all_batches(tmp_path: Path, batches: list[torch.Tensor]) -> None:
    _, lazy = both(save_model("llama", tmp_path))
    stream = stream_of(lazy)
    assert stream is not None
    run_together(lazy, calls(lazy, batches))
    assert stream.read_bytes == sum(unit.nbytes for unit in stream.units)


def test_generation_and_layers_that_stay(tmp_path: Path, batches: list[torch.Tensor]) -> None:
    whole, lazy = both(save_model("llama", tmp_path), keep_bytes=40_000)
    stream = stream_of(lazy)
    assert stream is not None
    kept = [unit.kept for unit in stream.units]
    assert kept[0] and not kept[-1]
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(whole.generate(batches[0], **settings), lazy.generate(batches[0], **settings))
    whole_passes = 6 * sum(unit.nbytes for unit in stream.units)
    assert stream.read_bytes < whole_passes


class Conversions(TorchDispatchMode):
    """Counts tensors of so many numbers that are converted to another precision."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers, self.count = numbers, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += func is torch.ops.aten._to_copy.default and result.numel() == self.numbers
        return result


@pytest.mark.parametrize(("keep_bytes", "reads"), [(0, 6), (1 << 30, 0)])
def test_the_head_stays_when_all_layers_do(
    keep_bytes: int, reads: int, tmp_path: Path, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "TABLE_ELEMENTS", 100)
    whole, lazy = both(save_model("llama", tmp_path), keep_bytes=keep_bytes)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = whole.generate(batches[0], **settings)
    assert torch.equal(lazy.generate(batches[0], **settings), expected)
    with Conversions(320 * 32) as seen:
        assert torch.equal(lazy.generate(batches[0], **settings), expected)
    assert seen.count == reads


def test_other_rows_may_be_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "TABLE_ELEMENTS", 100)
    whole, lazy = both(save_model("llama", tmp_path))
    rows = torch.randn(5, 32)
    ids = torch.tensor([[0, 3, 4]])
    found = []
    for model in (whole, lazy):
        embedding = model.get_input_embeddings()
        embedding.weight, embedding.num_embeddings = torch.nn.Parameter(rows, requires_grad=False), 5
        with torch.no_grad():
            found.append(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    assert torch.equal(*found)


def test_an_error_in_one_batch_is_told_and_the_next_run_works(tmp_path: Path, batches: list[torch.Tensor]) -> None:
    _, lazy = both(save_model("llama", tmp_path))

    def bad() -> torch.Tensor:
        lazy(input_ids=batches[0], use_cache=False)
        raise ValueError("made to fail")

    with pytest.raises(ValueError, match="made to fail"):
        run_together(lazy, [*calls(lazy, batches), bad])
    assert len(run_together(lazy, calls(lazy, batches))) == len(batches)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(folder)
    lazy = open_streamed(read_checkpoint(folder, "x"), lambda: AutoModelForCausalLM.from_config(config))
    with pytest.raises(VocabTransferError, match=r"layers\.1\.mlp\.up_proj"):
        run_together(lazy, calls(lazy, [torch.tensor([[5, 6]])]))


def test_eight_bit_weights_are_multiplied_out(tmp_path: Path, batches: list[torch.Tensor]) -> None:
    folder = save_model("llama", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    plain = dict(tensors)
    for name, value in list(tensors.items()):
        if "layers" in name and value.ndim == 2:
            scale = value.float().abs().max() / 448
            small = (value.float() / scale).to(torch.float8_e4m3fn)
            tensors[name], tensors[name + "_scale_inv"] = small, scale.reshape(1, 1)
            plain[name] = small.float() * scale
    save_file({k: v.float() for k, v in plain.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(folder)
    lazy = open_streamed(
        read_checkpoint(folder, "x"), lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    )
    with torch.no_grad():
        for one, other in zip(calls(whole, batches), run_together(lazy, calls(lazy, batches)), strict=True):
            assert torch.equal(one(), other)


def test_four_bit_experts_are_multiplied_out(tmp_path: Path, batches: list[torch.Tensor]) -> None:
    folder = save_model("gpt_oss", tmp_path, intermediate_size=64)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        tensors[f"{name}_blocks"] = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.randint(118, 124, (experts, outputs, inputs // 32), dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.embed_tokens"]}
    (folder / "config.json").write_text(json.dumps(settings))
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    checkpoint = read_checkpoint(folder, "x")
    lazy = plan.open_runnable(checkpoint, dtype="float32", memory=1000)
    stream = stream_of(lazy)
    assert stream is not None
    with torch.no_grad():
        for one, other in zip(calls(whole, batches), run_together(lazy, calls(lazy, batches)), strict=True):
            assert torch.equal(one(), other)
    kept = {name: value.numel() for name, value in whole.model.layers[0].named_parameters()}
    assert stream.layer_bytes == 4 * sum(kept.values()) == plan.plan_run(checkpoint, dtype="float32").layer


def test_bits_per_byte_are_those_of_the_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "TABLE_ELEMENTS", 100)
    folder = save_model("llama", tmp_path)
    documents = [f"t{i} t{i * 7 % 40} and more of it" for i in range(60)]
    scores = [
        bits_per_byte(model, load_tokenizer(folder), documents, window=16, batch_tokens=64) for model in both(folder)
    ]
    assert scores[0].nats == scores[1].nats


def test_calibration_of_a_model_too_large_is_that_of_one_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_checkpoint(save_model("llama", tmp_path), "x")
    words = {f"t{i}": float(1 + i % 5) for i in range(40)}
    tokenizer = toy_tokenizer([f"t{i}" for i in range(20, 60)], seed=3)
    monkeypatch.setattr(streamed, "TABLE_ELEMENTS", 100)
    whole = transfer(source, tokenizer, Evidence(words=words), method="pieces", calibrate=True)
    with running_with(dtype="float32", memory=1000):
        assert plan.plan_run(source).streamed
        lazy = transfer(source, tokenizer, Evidence(words=words), method="pieces", calibrate=True)
    assert whole.initialization.shift is not None and lazy.initialization.shift is not None
    assert (whole.initialization.shift.amounts == lazy.initialization.shift.amounts).all()


@pytest.mark.parametrize("matrix_units", [True, False])
def test_a_large_model_runs_in_what_its_cpu_multiplies_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix_units: bool
) -> None:
    source = read_checkpoint(save_model("llama", tmp_path), "x")  # stored in bfloat16
    for name, known in (("_is_amx_tile_supported", matrix_units), ("_is_avx512_bf16_supported", False)):
        monkeypatch.setattr(torch.cpu, name, lambda known=known: known, raising=False)
    assert plan.plan_run(source, device="cpu").dtype == torch.float32  # it fits
    small = plan.plan_run(source, device="cpu", memory=1000)
    assert small.streamed and small.dtype == (torch.bfloat16 if matrix_units else torch.float32)
    assert plan.plan_run(source, device="cpu", memory=1000, dtype="float32").dtype == torch.float32


def test_a_model_too_large_is_proved_by_generating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model("llama", tmp_path)
    monkeypatch.setattr(plan, "SHARE", 1e-9)
    monkeypatch.setattr(proof, "fits_in_memory", lambda parameters: False)
    seen = proof.prove(folder, {"t11": 3.0, "t12": 2.0}, find_language("tatar"))
    assert seen.loaded == "LlamaForCausalLM" and seen.prompt and "headers" not in seen.loaded


def test_devices_and_dtypes_are_checked(tmp_path: Path) -> None:
    source = read_checkpoint(save_model("llama", tmp_path), "x")
    for options, said in [
        ({"device": "tpu"}, "no device"),
        ({"device": "cpu:3"}, "not there"),
        ({"dtype": "int4"}, "no dtype"),
    ]:
        with pytest.raises(UsageError, match=said):
            plan.plan_run(source, **options)
    assert "layer by layer" in plan.plan_run(source, memory=1000).sentence()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2_folder", "gemma3_folder"])
def test_real_models_give_the_same_bits(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    whole, lazy = both(folder)
    torch.manual_seed(2)
    texts = [torch.randint(10, 40_000, (2, 24 + i)) for i in range(3)]
    with torch.no_grad():
        for one, other in zip(calls(whole, texts), run_together(lazy, calls(lazy, texts)), strict=True):
            assert torch.equal(one(), other)
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(whole.generate(texts[0], **settings), lazy.generate(texts[0], **settings))
