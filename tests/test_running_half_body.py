"""A body in bfloat16 where that is faster: nearly the same states, and never a model that no longer runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vocabtransfer.running import half_body
from vocabtransfer.running.half_body import halve_where_faster, products_in_bfloat16
from vocabtransfer.running.settings import running_with

IDS = torch.arange(20)[None]
Model = Callable[[], LlamaForCausalLM]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Return what makes a small model, the same each time, on a machine that multiplies bfloat16 fast."""
    monkeypatch.setattr(half_body, "multiplies_bfloat16", lambda: True)

    def made() -> LlamaForCausalLM:
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
        model.train(False)
        return model

    return made


@pytest.mark.parametrize(("matrices", "vectors"), [(True, True), (True, False), (False, True), (False, False)])
def test_either_kind_of_instructions_makes_bfloat16_the_faster_one(
    monkeypatch: pytest.MonkeyPatch, matrices: bool, vectors: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrices, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vectors, raising=False)
    assert half_body.multiplies_bfloat16() is (matrices or vectors)


def test_a_torch_that_cannot_tell_of_instructions_counts_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not half_body.multiplies_bfloat16()


@torch.no_grad()
def states(model: LlamaForCausalLM) -> torch.Tensor:
    found: torch.Tensor = model.model(input_ids=IDS).last_hidden_state
    return found


def kinds(model: LlamaForCausalLM) -> set[torch.dtype]:
    return {p.dtype for p in model.parameters()}


def test_a_body_is_halved_and_its_states_hardly_move(make: Model) -> None:
    model = make()
    before = states(model)
    assert halve_where_faster(model)
    assert kinds(model) == {torch.float32, torch.bfloat16}
    assert model.model.embed_tokens.weight.dtype == model.lm_head.weight.dtype == torch.float32
    after = states(model)
    assert after.dtype == torch.float32
    assert 0 < (after - before).norm() < 0.03 * before.norm()


def test_it_is_left_whole_where_nothing_is_won_or_float32_was_asked_for(
    make: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    with running_with(dtype="float32"):
        assert not halve_where_faster(model)
    in_half: Any = make()
    assert not halve_where_faster(in_half.to(torch.bfloat16))
    monkeypatch.setattr(half_body, "multiplies_bfloat16", lambda: False)
    assert not halve_where_faster(model)
    assert kinds(model) == {torch.float32}


def test_a_model_that_reads_a_weight_by_itself_is_put_back_as_it_was(
    make: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    layer = model.model.layers[0].mlp.down_proj
    gate = model.model.layers[0].mlp.gate_proj
    own = layer.forward
    monkeypatch.setattr(layer, "forward", lambda x: own(x) + x @ gate.weight[:, :1] @ torch.ones(1, 32))
    before = states(model)
    assert not halve_where_faster(model)
    assert kinds(model) == {torch.float32}
    assert torch.equal(states(model), before)


def test_the_precision_of_products_is_put_back_whatever_happens(make: Model) -> None:
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), products_in_bfloat16():
        assert matmul.fp32_precision == "bf16"
        raise ZeroDivisionError
    assert matmul.fp32_precision == before
    with running_with(dtype="float32"), products_in_bfloat16():
        assert matmul.fp32_precision == before
