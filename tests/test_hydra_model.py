"""`HydraForCausalLM` with one head at a time: the same numbers as the standalone checkpoints, whatever else goes on."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import Sample, ids_for, make_sample, one_thread, tokenizer  # noqa: F401
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM

NAMES = ("english", "tatar", "dutch")
SETTINGS: list[dict[str, Any]] = [
    {"do_sample": False},
    {"do_sample": False, "num_beams": 3},
    {"do_sample": True, "top_k": 20, "temperature": 0.8},
    {"do_sample": True, "num_return_sequences": 2},
    {"do_sample": False, "use_cache": False},
    {"do_sample": False, "repetition_penalty": 1.3},
]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def each_sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("each"), tied=request.param)


@pytest.fixture
def model(sample: Sample) -> HydraForCausalLM:
    return sample.load()


def generated(model: Any, ids: torch.Tensor, **settings: Any) -> torch.Tensor:
    torch.manual_seed(0)
    result: torch.Tensor = model.generate(ids, max_new_tokens=8, **settings)
    return result


def test_logits_are_the_standalone_checkpoints_bit_for_bit(each_sample: Sample) -> None:
    model = each_sample.load()
    for name in (*NAMES, *reversed(NAMES)):
        ids = ids_for(name)
        wanted = each_sample.plain(name)
        assert torch.equal(model(ids, head=name).logits, wanted(ids).logits)
        with model.use_head(name):
            assert torch.equal(model(input_ids=ids, labels=ids).loss, wanted(ids, labels=ids).loss)
        model.set_head(name)
        assert torch.equal(model(ids).logits, wanted(ids).logits)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s)))
def test_generation_is_the_standalone_checkpoints(
    model: HydraForCausalLM, plain: dict[str, Any], settings: dict[str, Any]
) -> None:
    for name in NAMES:
        ids = ids_for(name, length=5)
        with model.use_head(name):
            assert torch.equal(generated(model, ids, **settings), generated(plain[name], ids, **settings))


def test_padded_batches(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    for name in NAMES:
        batch = tokenizer(name)(["hello", "a longer text"], padding=True, padding_side="left", return_tensors="pt")
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        ours = model.generate(**inputs, head=name, max_new_tokens=6, do_sample=False)
        assert torch.equal(ours, plain[name].generate(**inputs, max_new_tokens=6, do_sample=False))


def test_switching_changes_everything_together(model: HydraForCausalLM) -> None:
    for name in NAMES:
        own = tokenizer(name)
        model.set_head(name)
        assert model.active_head == name
        assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == len(own)
        assert model.get_output_embeddings().weight.shape[0] == model.get_output_embeddings().out_features == len(own)
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        for settings in (model.config, model.generation_config):
            assert settings.eos_token_id == own.eos_token_id
            assert settings.pad_token_id == own.pad_token_id
        assert model.tokenizer().get_vocab() == own.get_vocab()
        assert model.view().model.embed_tokens.padding_idx == own.pad_token_id
        model.tie_weights()
        assert torch.equal(model(ids_for(name)).logits, model.view(name)(ids_for(name)).logits)
    assert len({id(model.view(name).model.layers) for name in NAMES}) == 1


def test_a_switch_makes_and_reads_nothing(sample: Sample, tmp_path: Path) -> None:
    """What makes switching fast (benchmarks/hydra measures it): loaded heads need neither their files nor new models."""
    hydra = Path(shutil.copytree(sample.hydra, tmp_path / "hydra"))
    model = HydraForCausalLM.from_pretrained(hydra, dtype=torch.float32, memory_map=False)
    views = {}
    for name in NAMES:
        model.set_head(name)
        model.tokenizer()
        views[name] = model.view()
    shutil.rmtree(hydra)
    for name in (*NAMES, *reversed(NAMES)):
        model.set_head(name)
        assert model.view() is views[name] and model.config is views[name].config
        assert model.tokenizer().get_vocab() == tokenizer(name).get_vocab()


def test_blocks_nest_and_end_with_an_error(model: HydraForCausalLM) -> None:
    model.set_head("dutch")
    with model.use_head("tatar") as used:
        assert used is model and model.active_head == "tatar"
        with model.use_head(input="english"):
            assert model.active_head == ("english", "tatar")
        assert model.active_head == "tatar"
        with pytest.raises(ZeroDivisionError), model.use_head("english"):
            1 / 0  # noqa: B018
        assert model.active_head == "tatar"
    assert model.active_head == "dutch"


def test_what_does_not_exist_changes_nothing(model: HydraForCausalLM) -> None:
    model.set_head("tatar")
    attempts = [
        lambda: model.set_head("frisian"),
        lambda: model.set_head(output="frisian"),
        lambda: model.load_head("frisian"),
        lambda: model.delete_head("frisian"),
        lambda: model.use_head("frisian").__enter__(),
        lambda: model.tokenizer("frisian"),
        lambda: model.generate(ids_for("tatar"), head="frisian"),
    ]
    for attempt in attempts:
        with pytest.raises(VocabTransferError, match=r"no head named 'frisian'; .* english, dutch, tatar"):
            attempt()
    with pytest.raises(UsageError, match="either one head"):
        model.set_head("tatar", input="dutch")
    assert model.active_head == "tatar"


def test_reading_with_one_head_and_writing_with_another(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    ids = ids_for("english", length=6)
    model.set_head(input="english", output="tatar")
    states = plain["english"].model(ids).last_hidden_state
    assert torch.equal(model(ids).logits, plain["tatar"].lm_head(states))
    assert model.config.vocab_size == len(tokenizer("tatar"))
    assert model.config.tie_word_embeddings is False
    made = model.generate(ids, max_new_tokens=6, do_sample=False)
    # The same by hand: the prompt's embeddings, then Tatar tokens with Tatar rows.
    rows = plain["english"].get_input_embeddings()(ids)
    for step in range(6):
        logits = plain["tatar"](inputs_embeds=rows).logits[:, -1]
        token = logits.argmax(dim=-1, keepdim=True)
        assert torch.equal(made[:, step : step + 1], token)
        rows = torch.cat([rows, plain["tatar"].get_input_embeddings()(token)], dim=1)
    assert torch.equal(made, model.generate(ids, head=("english", "tatar"), max_new_tokens=6, do_sample=False))


def test_padding_of_a_foreign_prompt_is_seen(model: HydraForCausalLM) -> None:
    pad = tokenizer("english").pad_token_id
    short, long = ids_for("english", 1, 3), ids_for("english", 1, 5, seed=1)
    batch = torch.cat([torch.cat([torch.full((1, 2), pad), short], dim=1), long])
    settings: dict[str, Any] = {"head": ("english", "dutch"), "max_new_tokens": 5, "do_sample": False}
    both = model.generate(batch, **settings)
    assert torch.equal(both[:1], model.generate(short, **settings))
    assert torch.equal(both[1:], model.generate(long, **settings))


def test_hidden_states_come_once_in_any_order(sample: Sample, plain: dict[str, Any]) -> None:
    for order in (NAMES, NAMES[::-1]):
        model = sample.load()
        for name in (*order, *order):
            ids = ids_for(name)
            ours = model(ids, head=name, output_hidden_states=True).hidden_states
            wanted = plain[name](ids, output_hidden_states=True).hidden_states
            assert len(ours) == len(wanted)
            assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


def test_threads_with_different_heads_never_mix(sample: Sample, plain: dict[str, Any]) -> None:
    """Four threads, three heads and a budget for one: every result is that of the standalone checkpoint."""
    model = sample.load(head_budget=40_000)
    prompts = {name: ids_for(name, length=4) for name in NAMES}
    wanted = {name: plain[name].generate(prompts[name], max_new_tokens=5, do_sample=False) for name in NAMES}
    start = threading.Barrier(4)

    def work(number: int) -> int:
        start.wait()
        wrong = 0
        for step in range(12):
            name = NAMES[(number + step) % 3]
            if step % 2:
                made = model.generate(prompts[name], head=name, max_new_tokens=5, do_sample=False)
            else:
                with model.use_head(name):
                    made = model.generate(prompts[name], max_new_tokens=5, do_sample=False)
                    wrong += model.active_head != name
            wrong += not torch.equal(made, wanted[name])
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 0, 0, 0]


def test_a_block_holds_in_its_own_thread_only(model: HydraForCausalLM) -> None:
    seen: list[Any] = []
    with model.use_head("tatar"):
        thread = threading.Thread(target=lambda: seen.append(model.active_head))
        thread.start()
        thread.join()
        other = HydraForCausalLM.from_pretrained(model.view("english").name_or_path)
        seen.append(other.active_head)
    assert seen == ["english", "english"]


def test_views_are_ordinary_models(
    sample: Sample, model: HydraForCausalLM, plain: dict[str, Any], tmp_path: Path
) -> None:
    view = model.view("tatar")
    assert type(view) is LlamaForCausalLM
    view.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(again(ids_for("tatar")).logits, plain["tatar"](ids_for("tatar")).logits)
    assert view.state_dict().keys() == plain["tatar"].state_dict().keys()


def test_assisted_generation_with_another_view(sample: Sample, model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    ids = ids_for("tatar", rows=1, length=5)
    made = model.generate(ids, head="tatar", assistant_model=plain["tatar"], max_new_tokens=8, do_sample=False)
    assert torch.equal(made, plain["tatar"].generate(ids, max_new_tokens=8, do_sample=False))


def test_generation_settings_are_the_heads(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    settings = GenerationConfig(max_new_tokens=3, do_sample=False)
    ids = ids_for("dutch")
    assert torch.equal(
        model.generate(ids, generation_config=settings, head="dutch"),
        plain["dutch"].generate(ids, generation_config=settings),
    )


def test_moving_and_casting_takes_heads_along(model: HydraForCausalLM, sample: Sample) -> None:
    model.load_head("tatar")
    model.to(torch.bfloat16)
    model.load_head("dutch")
    for name in NAMES:
        reference = sample.plain(name).to(torch.bfloat16)
        assert model.view(name).get_input_embeddings().weight.dtype == torch.bfloat16
        assert torch.equal(model(ids_for(name), head=name).logits, reference(ids_for(name)).logits)


def test_choosing_the_attention_reaches_every_head(model: HydraForCausalLM, sample: Sample) -> None:
    model.load_head("tatar")
    model.set_head("tatar")
    model.set_attn_implementation("eager")
    for name in NAMES:
        reference = sample.plain(name)
        reference.set_attn_implementation("eager")
        ids = ids_for(name)
        ours = model(ids, head=name, output_attentions=True)
        wanted = reference(ids, output_attentions=True)
        assert torch.equal(ours.logits, wanted.logits)
        assert len(ours.attentions) == len(wanted.attentions) == 2


def test_heads_on_disk_are_never_written_to(sample: Sample) -> None:
    file = sample.hydra / "heads/tatar/head.safetensors"
    before = file.read_bytes()
    model = sample.load()
    model.head("tatar").tables.input.data.zero_()
    assert model(ids_for("tatar"), head="tatar").logits.abs().max() == 0
    assert file.read_bytes() == before
    assert sample.load()(ids_for("tatar"), head="tatar").logits.abs().max() > 0


def test_training_a_head(sample: Sample, tmp_path: Path) -> None:
    """Only heads asked for take gradients; a trained head is never given up, and can be saved as a new one."""
    shutil.copytree(sample.hydra, tmp_path / "hydra")
    model = HydraForCausalLM.from_pretrained(tmp_path / "hydra", dtype=torch.float32, head_budget=80_000)
    model.backbone.requires_grad_(False)
    model.load_head("tatar", is_trainable=True)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [parameter.shape for parameter in trained] == [(len(tokenizer("tatar")), 32)]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    ids = ids_for("tatar")
    before = model(ids, head="tatar", labels=ids).loss
    for _ in range(5):
        optimizer.zero_grad()
        model(ids, head="tatar", labels=ids).loss.backward()
        optimizer.step()
    model.eval()
    after = model(ids, head="tatar", labels=ids).loss
    assert after < before
    model.set_head("dutch")
    model.head_budget = 40_000
    assert "tatar" in model.loaded_heads and model(ids, head="tatar", labels=ids).loss == after
    model.save_head("tatar", "tatar-tuned")
    again = HydraForCausalLM.from_pretrained(tmp_path / "hydra", dtype=torch.float32)
    assert torch.equal(again(ids, head="tatar-tuned", labels=ids).loss, after)
    assert torch.equal(again(ids, head="tatar", labels=ids).loss, before)


def test_training_mode_reaches_views_made_before_and_after(model: HydraForCausalLM) -> None:
    early = model.view("tatar")
    model.train()
    late = model.view("dutch")
    assert all(module.training for view in (early, late) for module in view.modules())
    model.eval()
    assert not any(module.training for view in (early, late) for module in view.modules())


def test_unknown_attributes_are_the_models(model: HydraForCausalLM) -> None:
    assert model.dtype == torch.float32 and model.device.type == "cpu"
    assert not hasattr(model, "no_such_thing")


def test_a_model_that_cannot_be_loaded(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rename it"):
        HydraForCausalLM.from_pretrained(sample.hydra, own_name="inglizcha")
    with pytest.raises(VocabTransferError, match="neither a folder"):
        HydraForCausalLM.from_pretrained("no such model")
