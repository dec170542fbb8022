"""A LoRA adapter as the adapted model: split in two, and every adapter that cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from propagation_samples import (
    HIDDEN,
    INPUT,
    OUTPUT,
    Family,
    adapted_tokenizer,
    family,
    load_all,
)
from safetensors.torch import save_file

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.propagation import LoraDonor, open_adapted, propagate
from vocabtransfer.tokenization.save import save_tokenizer

QUERY = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.1.mlp.down_proj"
NORM = "model.norm.weight"
PEFT = "base_model.model."
SETTINGS = {"peft_type": "LORA", "lora_alpha": 8, "r": 2, "base_model_name_or_path": "somewhere/else", "bias": "none"}
Tensors = dict[str, torch.Tensor]


def lora(rank: int = 2) -> Tensors:
    torch.manual_seed(7)
    made = {
        f"{PEFT}{QUERY}.lora_A.weight": torch.randn(rank, HIDDEN),
        f"{PEFT}{QUERY}.lora_B.weight": torch.randn(HIDDEN, rank),
        f"{PEFT}{DOWN}.lora_A.weight": torch.randn(4, 12),
        f"{PEFT}{DOWN}.lora_B.weight": torch.randn(HIDDEN, 4),
    }
    return {name: value.double() for name, value in made.items()}


def tables(made: Family) -> Tensors:
    return {
        f"{PEFT}{name}": made.tensors["adapted"][name] for name in (INPUT, OUTPUT) if name in made.tensors["adapted"]
    }


def save_adapter(folder: Path, tensors: Tensors, tokenizer: bool = True, **settings: Any) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    if tokenizer:
        save_tokenizer(adapted_tokenizer(), folder)
    return folder


def donor(made: Family, folder: Path) -> LoraDonor:
    opened = open_adapted(folder, made.base)
    assert isinstance(opened, LoraDonor)
    return opened


@pytest.mark.parametrize("tied", [True, False])
def test_tables_go_first_and_layers_after(tied: bool, tmp_path: Path) -> None:
    made = family(tmp_path, tied=tied)
    norm = torch.full((HIDDEN,), 3.0).double()
    tensors = {**tables(made), **lora(), f"{PEFT}{NORM}": norm}
    adapter = donor(made, save_adapter(tmp_path / "lora", tensors, alpha_pattern={"mlp.down_proj": 2}))
    result = propagate(made.base, adapter, made.instruct)
    plain = propagate(made.base, made.adapted, made.instruct)
    written = load_all(result.save(tmp_path / "out").path)
    expected = load_all(plain.save(tmp_path / "plain").path)
    body = made.tensors["instruct"]
    pairs = {name.removeprefix(PEFT): value for name, value in tensors.items()}
    for module, scale in ((QUERY, 8 / 2), (DOWN, 2 / 4)):
        name = f"{module}.weight"
        update = scale * pairs[f"{module}.lora_B.weight"] @ pairs[f"{module}.lora_A.weight"]
        torch.testing.assert_close(written[name], body[name] + update, rtol=1e-13, atol=1e-13)
        expected.pop(name)
    torch.testing.assert_close(written[NORM], body[NORM] + norm - made.tensors["base"][NORM])
    expected.pop(NORM)
    for name, value in expected.items():
        assert torch.equal(written[name], value), name
    assert result.facts["body"] == {"lambda": 1.0, "tensors_changed": 3, "lora_updates": 2, "lora_replaced": 1}


def test_the_weight_of_the_layer_part(tmp_path: Path) -> None:
    made = family(tmp_path)
    adapter = donor(made, save_adapter(tmp_path / "lora", tables(made) | lora(), use_rslora=True))
    half = load_all(propagate(made.base, adapter, made.instruct, body_lambda=0.5).save(tmp_path / "half").path)
    update = lora()[f"{PEFT}{QUERY}.lora_B.weight"] @ lora()[f"{PEFT}{QUERY}.lora_A.weight"] * 8 / 2**0.5
    name = f"{QUERY}.weight"
    torch.testing.assert_close(half[name], made.tensors["instruct"][name] + 0.5 * update)
    none = propagate(made.base, adapter, made.instruct, body_lambda=0.0)
    assert not none.changes and none.save(tmp_path / "none").bytes_linked > 0


def test_an_adapter_without_tables_stands_on_its_own_model(tmp_path: Path) -> None:
    """Its model brings tables, tokenizer, and what it had changed in the layers before."""
    made = family(tmp_path)
    adapter = donor(
        made, save_adapter(tmp_path / "lora", lora(), False, base_model_name_or_path=str(made.adapted.path))
    )
    written = load_all(propagate(made.base, adapter, made.instruct).save(tmp_path / "out").path)
    plain = load_all(propagate(made.base, made.adapted, made.instruct, body_lambda=1.0).save(tmp_path / "plain").path)
    update = lora()[f"{PEFT}{QUERY}.lora_B.weight"] @ lora()[f"{PEFT}{QUERY}.lora_A.weight"] * 8 / 2
    plain[f"{QUERY}.weight"] += update
    assert torch.equal(written[INPUT], plain[INPUT])
    torch.testing.assert_close(written[f"{QUERY}.weight"], plain[f"{QUERY}.weight"], rtol=1e-13, atol=1e-13)


def test_layers_that_store_their_matrices_the_other_way(tmp_path: Path) -> None:
    """GPT-2 stores (in, out), leaves ``transformer.`` out of its names on disk, and PEFT says fan_in_fan_out."""
    made = family(tmp_path)
    adapter = donor(
        made,
        save_adapter(
            tmp_path / "lora",
            {
                **tables(made),
                **{name.replace(PEFT, f"{PEFT}wrapped."): value for name, value in lora().items() if QUERY in name},
            },
            fan_in_fan_out=True,
        ),
    )
    written = load_all(propagate(made.base, adapter, made.instruct).save(tmp_path / "out").path)
    update = lora()[f"{PEFT}{QUERY}.lora_B.weight"] @ lora()[f"{PEFT}{QUERY}.lora_A.weight"] * 8 / 2
    name = f"{QUERY}.weight"
    torch.testing.assert_close(written[name], made.tensors["instruct"][name] + update.T)


def test_a_tied_head_saved_beside_its_table(tmp_path: Path) -> None:
    made = family(tmp_path, tied=True)
    same = {f"{PEFT}{INPUT}": made.tensors["adapted"][INPUT], f"{PEFT}{OUTPUT}": made.tensors["adapted"][INPUT].clone()}
    adapter = donor(made, save_adapter(tmp_path / "same", same))
    assert adapter.checkpoint.layout.tied and adapter.checkpoint.layout.rows == len(adapted_tokenizer())
    same[f"{PEFT}{OUTPUT}"] = same[f"{PEFT}{OUTPUT}"] + 1
    with pytest.raises(VocabTransferError, match=r"trained input and output table apart, but its base model ties them"):
        open_adapted(save_adapter(tmp_path / "apart", same), made.base)


def test_a_folder_without_adapter_is_a_model(tmp_path: Path) -> None:
    made = family(tmp_path)
    assert open_adapted(made.adapted.path, made.base).name == "adapted"  # type: ignore[union-attr]


REFUSED = {
    "only LoRA adapters can be split": {"peft_type": "IA3"},
    "uses use_dora of PEFT, which is not supported": {"use_dora": True},
    "uses bias of PEFT": {"bias": "all"},
    "uses trainable_token_indices of PEFT": {"trainable_token_indices": [3]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_kinds_of_adapters(message: str, tmp_path: Path) -> None:
    made = family(tmp_path)
    with pytest.raises(VocabTransferError, match=message):
        open_adapted(save_adapter(tmp_path / "lora", tables(made) | lora(), **REFUSED[message]), made.base)


def refused(tmp_path: Path, tensors: Tensors, message: str, **settings: Any) -> None:
    base = open_checkpoint(tmp_path / "base")
    with pytest.raises(VocabTransferError, match=message) as caught:
        open_adapted(save_adapter(tmp_path / "lora", tensors, **settings), base)
    assert "\n" not in str(caught.value)


def test_damaged_adapters(tmp_path: Path) -> None:
    made = family(tmp_path)
    whole = tables(made) | lora()
    up, down = f"{PEFT}{QUERY}.lora_B.weight", f"{PEFT}{QUERY}.lora_A.weight"
    visual = {f"{PEFT}visual.proj.lora_{side}.weight": torch.zeros(2, 2) for side in "AB"}
    magnitude = {f"{PEFT}{QUERY}.lora_magnitude_vector.weight": torch.zeros(8)}
    half = {name: value for name, value in whole.items() if name != up}
    headless = {name: value for name, value in whole.items() if OUTPUT not in name}
    cases: list[tuple[Tensors, str]] = [
        (half, f"the two LoRA matrices of '{QUERY}' do not fit together"),
        ({**whole, up: torch.zeros(HIDDEN, 3)}, f"the two LoRA matrices of '{QUERY}' do not fit together"),
        ({**whole, down: torch.zeros(2, 5)}, rf"updates '{QUERY}.weight' with a matrix of \[8, 5\]"),
        ({**whole, **visual},
         "changes 'visual.proj.weight', which is no tensor of the model base: the adapter belongs to another"),
        ({**whole, f"{PEFT}{NORM}": torch.zeros(3)}, r"has 'model.norm.weight' as F32 \[3\]"),
        ({**whole, **magnitude}, "lora_magnitude_vector"),
        ({**whole, f"{PEFT}{OUTPUT}": torch.zeros(7, HIDDEN)}, "has tables that do not fit the rest of its model"),
        (headless, "has no table 'lm_head.weight' and the model 'somewhere/else'"),
    ]  # fmt: skip
    for i, (tensors, message) in enumerate(cases):
        home = tmp_path / str(i)
        home.mkdir()
        (home / "base").symlink_to(tmp_path / "base")
        refused(home, tensors, message)


def test_an_adapter_needs_its_tokenizer(tmp_path: Path) -> None:
    made = family(tmp_path)
    refused(tmp_path, tables(made) | lora(), "has no tokenizer and the model 'somewhere/else'", tokenizer=False)


def test_pickled_adapters_are_not_opened(tmp_path: Path) -> None:
    made = family(tmp_path)
    folder = save_adapter(tmp_path / "lora", tables(made))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(VocabTransferError, match=r"has no adapter_model.safetensors"):
        open_adapted(folder, made.base)


@pytest.mark.parametrize("tied", [True, False])
def test_against_peft(tied: bool, tmp_path: Path) -> None:
    """What PEFT itself writes, with ranks and scales by pattern, gives the layers that PEFT itself merges."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    made = family(tmp_path, tied=tied, dtype=torch.float32, same_body=True, same_instruct=True)
    model = AutoModelForCausalLM.from_pretrained(made.adapted.path)
    config = peft.LoraConfig(
        r=2,
        lora_alpha=8,
        target_modules=["q_proj", "down_proj"],
        modules_to_save=["embed_tokens"] if tied else ["embed_tokens", "lm_head"],
        alpha_pattern={"layers.1.self_attn.q_proj": 3},
        rank_pattern={"layers.1.self_attn.q_proj": 4},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, config)
    wrapped.save_pretrained(tmp_path / "lora")
    save_tokenizer(adapted_tokenizer(), tmp_path / "lora")
    merged = wrapped.merge_and_unload().state_dict()
    adapter = donor(made, tmp_path / "lora")
    written = load_all(propagate(made.base, adapter, made.instruct).save(tmp_path / "out").path)
    assert len(adapter.updates) == 4
    for name, value in written.items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-5)
