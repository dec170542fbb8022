"""LoRA and heads: on the backbone for all of them, or bound to one."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import TEXTS, Sample, ids_for, make_sample, one_thread, tokenizer  # noqa: F401

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM, attach_adapter, export_concatenated, export_head, list_heads

peft = pytest.importorskip("peft")

NAMES = ("english", "tatar", "dutch")
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The Tatar head has a LoRA; ``standalone["lora"]`` is its folder."""
    folder = tmp_path_factory.mktemp("sample")
    made = make_sample(folder)
    model = with_noise(peft.get_peft_model(made.plain("tatar"), lora()))
    model.save_pretrained(folder / "lora")
    attach_adapter(made.hydra, "tatar", folder / "lora")
    return Sample(made.hydra, {**made.standalone, "lora": folder / "lora"})


def lora(**changes: Any) -> Any:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "lora_dropout": 0.5}
    return peft.LoraConfig(task_type="CAUSAL_LM", **{**settings, **changes})


def with_noise(model: Any) -> Any:
    """Make a fresh LoRA, which changes nothing, one that changes a lot."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def adapted(sample: Sample, name: str) -> Any:
    """The standalone checkpoint, with its LoRA put on by PEFT if it has one."""
    plain = sample.plain(name)
    return peft.PeftModel.from_pretrained(plain, sample.standalone["lora"]).eval() if name == "tatar" else plain


def test_a_bound_lora_is_active_for_its_head_and_no_other(sample: Sample) -> None:
    model = sample.load()
    for name in (*NAMES, *reversed(NAMES)):
        ids = ids_for(name)
        wanted = adapted(sample, name)
        assert torch.equal(model(ids, head=name).logits, wanted(input_ids=ids).logits)
        assert torch.equal(model.generate(ids, head=name, **GREEDY), wanted.generate(input_ids=ids, **GREEDY))
    assert not torch.equal(model(ids_for("tatar"), head="tatar").logits, sample.plain("tatar")(ids_for("tatar")).logits)
    assert not any("lora" in name for name, _ in model.backbone.named_modules())
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


def test_rows_with_and_without_a_lora_in_one_batch(sample: Sample) -> None:
    model = sample.load()
    rows = [[(name, TEXTS[name])] for name in ("tatar", "dutch", "tatar", "english")]
    together = model.generate(**model.encode(rows), **GREEDY)
    for tokens, row in zip(together, rows, strict=True):
        name, text = row[0]
        ids = torch.tensor([tokenizer(name)(text)["input_ids"]])
        alone = adapted(sample, name).generate(input_ids=ids, **GREEDY)[0, ids.shape[1] :]
        assert model.decode(tokens, name) == model.decode(alone, name)
    encoding = model.encode(rows, train=NAMES)
    logits = model(**encoding).logits
    for place, row in enumerate(rows):
        name, text = row[0]
        ids = torch.tensor([tokenizer(name)(text)["input_ids"]])
        offset = int(encoding["input_ids"][place, 0] - ids[0, 0])
        ours = logits[place, : ids.shape[1], offset : offset + len(tokenizer(name))]
        torch.testing.assert_close(ours, adapted(sample, name)(input_ids=ids).logits[0], rtol=1e-4, atol=1e-4)
    for extra in ({"return_dict_in_generate": True}, {"streamer": object()}):
        with pytest.raises(UsageError, match="different LoRAs"):
            model.generate(**model.encode(rows), **GREEDY, **extra)


def test_a_lora_on_the_backbone_is_active_for_all_heads(sample: Sample, tmp_path: Path) -> None:
    made = make_sample(tmp_path)
    model = made.load()
    early = model.view("tatar")
    wrapped = with_noise(peft.get_peft_model(model.backbone, lora()))
    for name in NAMES:
        plain = made.plain(name)
        wanted = peft.get_peft_model(plain, lora()).eval()
        peft.set_peft_model_state_dict(wanted, peft.get_peft_model_state_dict(wrapped))
        ids = ids_for(name)
        assert torch.equal(model(ids, head=name).logits, wanted(input_ids=ids).logits)
        with wrapped.disable_adapter():
            assert torch.equal(model(ids, head=name).logits, made.plain(name)(ids).logits)
    assert model.view("tatar") is early


def test_peft_around_the_whole_hydra(tmp_path: Path) -> None:
    made = make_sample(tmp_path)
    model = made.load()
    wrapped = with_noise(peft.get_peft_model(model, lora()))
    for name in NAMES:
        wanted = peft.get_peft_model(made.plain(name), lora()).eval()
        state = {k.replace("backbone.", ""): v for k, v in peft.get_peft_model_state_dict(wrapped).items()}
        loaded = peft.set_peft_model_state_dict(wanted, state)
        assert not loaded.unexpected_keys
        ids = ids_for(name)
        model.set_head(name)
        assert torch.equal(wrapped(input_ids=ids).logits, wanted(input_ids=ids).logits)
        assert torch.equal(wrapped.generate(input_ids=ids, **GREEDY), wanted.generate(input_ids=ids, **GREEDY))


def test_a_lora_trains_through_a_head(tmp_path: Path) -> None:
    model = make_sample(tmp_path).load()
    wrapped = peft.get_peft_model(model.backbone, lora(lora_dropout=0.0))
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.5)
    ids = ids_for("tatar")
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(ids, head="tatar", labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_adapters_on_disk(sample: Sample, tmp_path: Path) -> None:
    assert [info.adapter for info in list_heads(sample.hydra)] == [False, False, True]
    with pytest.raises(VocabTransferError, match="has an adapter already"):
        attach_adapter(sample.hydra, "tatar", sample.standalone["lora"])
    with pytest.raises(VocabTransferError, match="own head"):
        attach_adapter(sample.hydra, "english", sample.standalone["lora"])
    with pytest.raises(VocabTransferError, match="not a LoRA adapter"):
        attach_adapter(sample.hydra, "dutch", sample.standalone["english"])
    export_head(sample.hydra, "tatar", tmp_path / "out")
    assert (tmp_path / "out/adapter/adapter_model.safetensors").is_file()
    with pytest.raises(VocabTransferError, match="LoRA of its own"):
        export_concatenated(sample.hydra, tmp_path / "joined")
    model = HydraForCausalLM.from_pretrained(sample.hydra, dtype=torch.float32)
    hydra = Path(shutil.copytree(sample.hydra, tmp_path / "hydra"))
    copied = HydraForCausalLM.from_pretrained(hydra, dtype=torch.float32)
    copied.save_head("tatar", "twin")
    assert torch.equal(copied(ids_for("tatar"), head="twin").logits, model(ids_for("tatar"), head="tatar").logits)


@pytest.mark.parametrize("wrong", ["truncated", "tables", "more layers", "fewer layers"])
def test_adapters_that_do_not_fit_are_refused(sample: Sample, tmp_path: Path, wrong: str) -> None:
    hydra = Path(shutil.copytree(sample.hydra, tmp_path / "hydra"))
    plain = sample.plain("dutch")
    if wrong == "fewer layers":
        del plain.model.layers[1]
    if wrong == "more layers":
        plain.model.layers.append(copy.deepcopy(plain.model.layers[0]))
    changes = {"modules_to_save": ["lm_head"]} if wrong == "tables" else {}
    with_noise(peft.get_peft_model(plain, lora(**changes))).save_pretrained(tmp_path / "bad")
    attach_adapter(hydra, "dutch", tmp_path / "bad")
    if wrong == "truncated":
        file = hydra / "heads/dutch/adapter/adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    model = HydraForCausalLM.from_pretrained(hydra, dtype=torch.float32)
    with pytest.raises(VocabTransferError, match="adapter"):
        model.set_head("dutch")
    assert model.active_head == "english"
    model.set_head("tatar")
