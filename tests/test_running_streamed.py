"""A streamed model gives what the whole model gives, bit for bit, with a layer or two of it in memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from vocabtransfer.checkpoint import read_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline import proof
from vocabtransfer.running import plan, streamed
from vocabtransfer.running.settings import running_with
from vocabtransfer.running.streamed import open_streamed, run_together, stream_of
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
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "qwen3": {"tie_word_embeddings": True},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "mamba": {"state_size": 4, "expand": 2},
}


def save_model(kind: str, folder: Path) -> Path:
    config = CONFIG_MAPPING[kind](**{**SMALL, **KINDS[kind]})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    save_tokenizer(toy_tokenizer([f"t{i}" for i in range(40)]), folder)
    return folder


def both(folder: Path, **options: Any) -> tuple[Any, Any]:
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=options.get("dtype", torch.float32)).eval()
    config = AutoConfig.from_pretrained(folder)
    dtype = options.get("dtype", torch.float32)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
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
    whole = transfer(source, tokenizer, method="pieces", words=words, calibrate=True)
    with running_with(dtype="float32", memory=1000):
        assert plan.plan_run(source).streamed
        lazy = transfer(source, tokenizer, method="pieces", words=words, calibrate=True)
    assert whole.initialization.shift is not None and lazy.initialization.shift is not None
    assert (whole.initialization.shift.amounts == lazy.initialization.shift.amounts).all()


@pytest.mark.parametrize("matrix_units", [True, False])
def test_a_large_model_runs_in_what_its_cpu_multiplies_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix_units: bool
) -> None:
    source = read_checkpoint(save_model("llama", tmp_path), "x")  # stored in bfloat16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units, raising=False)
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
