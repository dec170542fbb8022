"""What each stage trains and leaves alone, what the result keeps, and what is refused before any work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_samples import COPIED_ROWS, dying_after, files, make_model, one_thread, parameters, request, write_text
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.training import LoraShape

INPUT, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", tied=request.param)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "nl.txt")


def changed(before: Path, after: Path) -> set[str]:
    ours, theirs = parameters(before), parameters(after)
    assert ours.keys() == theirs.keys()
    return {name for name, value in ours.items() if not torch.equal(value, theirs[name])}


def tables(model: Path) -> set[str]:
    return {INPUT, HEAD} & set(parameters(model))


def layers(model: Path, *numbers: int) -> set[str]:
    return {name for name in parameters(model) for number in numbers if name.startswith(f"model.layers.{number}.")}


def test_new_rows_and_nothing_else(model: Path, text: Path, tmp_path: Path) -> None:
    vt.adapt(request(model, text, tmp_path / "out", "new:4:1e-2"))
    assert changed(model, tmp_path / "out") == tables(model)
    for name in tables(model):
        before, after = parameters(model)[name], parameters(tmp_path / "out")[name]
        assert torch.equal(before[:COPIED_ROWS], after[:COPIED_ROWS])
        assert (before[COPIED_ROWS:] != after[COPIED_ROWS:]).any()


@pytest.mark.parametrize("stage", ["tables", "outer", "lora", "all"])
def test_each_stage_trains_its_part(model: Path, text: Path, tmp_path: Path, stage: str) -> None:
    result = vt.adapt(request(model, text, tmp_path / "out", f"{stage}:12:1e-2", batch_tokens=256))
    wanted = {
        "tables": tables(model),
        "outer": tables(model) | layers(model, 0, 1, 3, 4),
        "lora": tables(model) | {name for name in parameters(model) if "_proj" in name},
        "all": set(parameters(model)),
    }
    assert changed(model, tmp_path / "out") == wanted[stage]
    assert result.losses[0][-1] < result.losses[0][0]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    same = loaded.get_input_embeddings().weight.data_ptr() == loaded.get_output_embeddings().weight.data_ptr()
    assert same == (HEAD not in parameters(model))


def test_the_result_keeps_every_other_file(model: Path, text: Path, tmp_path: Path) -> None:
    (model / "model.bin").write_bytes(b"the old weights in another format")
    vt.adapt(request(model, text, tmp_path / "out", "tables:2:1e-2", held_out=(text,), held_out_bytes=300))
    (model / "model.bin").unlink()
    before, after = files(model), files(tmp_path / "out")
    assert after.keys() - before.keys() == {"README.md", "adapt.json", "vocabtransfer.json"}
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}
    assert "chat_template.jinja" in before and "token_map.safetensors" in before
    facts = json.loads(after["adapt.json"])
    assert [stage["name"] for stage in facts["stages"]] == ["tables"]
    assert [point["update"] for point in facts["curve"]] == [0, 2]
    measured = vt.evaluate(tmp_path / "out", [text], max_bytes=300).bits_per_byte
    assert facts["bits_per_byte"] == pytest.approx(measured, rel=1e-5)
    assert "Bits per byte on held-out text" in after["README.md"].decode()


def test_a_second_adaptation_keeps_the_first_card(tied: Path, text: Path, tmp_path: Path) -> None:
    vt.adapt(request(tied, text, tmp_path / "one", "new:2:1e-2"))
    vt.adapt(request(tmp_path / "one", text, tmp_path / "two", "tables:3:1e-2"))
    card = (tmp_path / "two" / "README.md").read_text()
    assert card.count("## Continued pre-training") == 2
    assert card.startswith((tmp_path / "one" / "README.md").read_text().rstrip())


def test_half_precision_files_stay_half_precision(text: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "bf16", dtype=torch.bfloat16)
    result = vt.adapt(request(model, text, tmp_path / "out", "all:6:1e-2", dtype="bf16"))
    assert {value.dtype for value in parameters(tmp_path / "out").values()} == {torch.bfloat16}
    full = vt.adapt(request(model, text, tmp_path / "full", "all:6:1e-2"))
    assert result.losses != full.losses
    assert result.losses[0] == pytest.approx(full.losses[0], rel=0.03)


def test_memory_is_saved_without_changing_what_is_learned(text: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", dropout=0.0)
    plain = vt.adapt(request(model, text, tmp_path / "plain", "all:5:1e-2"))
    for name, options in (("passes", {"passes": 3}), ("checkpointing", {"gradient_checkpointing": True})):
        frugal = vt.adapt(request(model, text, tmp_path / name, "all:5:1e-2", **options))
        assert frugal.losses[0] == pytest.approx(plain.losses[0], rel=1e-4)


def test_patience_ends_a_stage_and_hands_on_its_best(tied: Path, text: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"held_out": (text,), "held_out_bytes": 400, "evaluate_every": 2, "patience": 2}
    result = vt.adapt(request(tied, text, tmp_path / "out", "tables:10:1e-2", "all:40:0.3", **options))
    last = result.facts["stages"][1]
    assert last["updates"] < 40 == last["planned_updates"]
    assert last["updates"] == last["best_update"] + 4
    points = [point["bits_per_byte"] for point in result.facts["curve"]]
    assert result.facts["bits_per_byte"] == min(points) < points[-1]
    measured = vt.evaluate(tmp_path / "out", [text], max_bytes=400).bits_per_byte
    assert measured == pytest.approx(min(points), rel=1e-5)


def test_budgets_count_updates_or_tokens(tied: Path, text: Path, tmp_path: Path) -> None:
    result = vt.adapt(request(tied, text, tmp_path / "out", "tables:200tokens:1e-2"))
    assert len(result.losses[0]) == 4  # of 64 tokens each
    # Separators are not learned, so a few tokens less are counted.
    assert 0.9 * 256 < result.facts["stages"][0]["tokens"] <= 256


def test_without_stages_there_are_sensible_ones(tied: Path, tmp_path: Path) -> None:
    from vocabtransfer.training.stage import default_stages

    assert [stage.name for stage in default_stages(True)] == ["new", "tables", "outer"]
    assert [stage.name for stage in default_stages(False)] == ["tables", "outer"]
    short = default_stages(True, on_cpu=True)
    assert [stage.name for stage in short] == ["new", "tables"]
    assert sum(stage.budget for stage in short) < sum(stage.budget for stage in default_stages(True)) / 2


def test_rates_that_nobody_named_follow_the_size_of_the_rows(tmp_path: Path) -> None:
    from vocabtransfer.training.rates import MEANT_AT, fitted, rate_for, spread_of
    from vocabtransfer.training.stage import default_stages

    made = vt.open_checkpoint(make_model(tmp_path / "model"))
    folder = make_model(tmp_path / "another")
    table = made.input_table()
    assert spread_of(made) == pytest.approx(float((table - table.mean(dim=0)).square().mean().sqrt()), rel=1e-5)
    written = dict(load_file(folder / "model.safetensors"))
    name = made.layout.input_name
    # Ten times the numbers about another mean row: that does not count.
    written[name] = written[name] * 10 + torch.linspace(-3, 3, table.shape[1])
    save_file(written, folder / "model.safetensors", {"format": "pt"})
    larger = vt.open_checkpoint(folder)
    assert spread_of(larger) == pytest.approx(10 * spread_of(made), rel=1e-3)
    stages = default_stages(True)
    ours, theirs = fitted(stages, made), fitted(stages, larger)
    assert ours[0].learning_rate == float(f"{3e-4 * spread_of(made) / MEANT_AT:.1e}")
    for number in (0, 1):
        assert theirs[number].learning_rate == pytest.approx(10 * ours[number].learning_rate, rel=0.06)
    assert theirs[2] == ours[2] == stages[2], "the body's numbers are not the rows'"
    written[name] = torch.ones_like(table)
    save_file(written, folder / "model.safetensors", {"format": "pt"})
    assert rate_for(vt.open_checkpoint(folder), 1e-3) == 1e-3


def test_updates_on_a_cpu_are_small_unless_said_otherwise(tied: Path, text: Path, tmp_path: Path) -> None:
    sizes = {"block": None, "batch_tokens": None}
    facts = vt.adapt(request(tied, text, tmp_path / "out", "tables:1:1e-3", **sizes)).facts
    assert facts["block"] == 128 and facts["batch_tokens"] == 512
    facts = vt.adapt(request(tied, text, tmp_path / "long", "tables:1:1e-3", block=100, batch_tokens=None)).facts
    assert facts["batch_tokens"] == 600  # whole rows


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("tables:2:1e-2", {"block": 32, "batch_tokens": 8}, "`batch_tokens` 8 holds 0 blocks"),
        ("tables:2:1e-2", {"keep_adapter": True}, "`keep_adapter` needs one lora stage"),
        ("tables:2:1e-2", {"objective": "distill", "teacher": "x", "teacher_layer": 1}, "`teacher_layer` is for"),
        ("new:2:1e-2", {}, "no token_map.safetensors, so it is not known which rows are new"),
        ("tables:2:1e-2", {"output": "taken"}, "exists already"),
    ],
)
def test_what_the_words_alone_show_is_said_before_the_model_is_opened(
    text: Path, tmp_path: Path, stage: str, options: dict[str, Any], message: str
) -> None:
    model = tmp_path / "damaged.gguf"
    model.write_bytes(b"GGUF and nothing after it")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    settings = {name: value for name, value in options.items() if name != "output"}
    with pytest.raises(VocabTransferError, match=message):
        vt.adapt(request(model, text, tmp_path / options.get("output", "out"), stage, **settings))


def test_the_rate_rises_and_falls() -> None:
    stage = vt.Stage.parse("tables:1000:1e-3")
    rates = [stage.rate(update, 1000) for update in range(1000)]
    assert rates[:100] == sorted(rates[:100]) and rates[100:] == sorted(rates[100:], reverse=True)
    assert max(rates) == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-4, rel=0.01)
    assert vt.Stage.parse("tables:1:1e-3").rate(0, 1) == 1e-3


@pytest.mark.parametrize(
    "wrong",
    ["tables", "tables:5", "tables:5:1e-3:6", "heads:5:1e-3", "tables:0:1e-3", "tables:5:0", "all:x:1", "all:5:x"],
)
def test_stages_that_make_no_sense_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="`stages`"):
        vt.Stage.parse(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "`block` is 0"),
        ({"block": 129, "batch_tokens": 258}, "`block` is 129, but the model was made for 128"),
        ({"batch_tokens": 8}, "`batch_tokens` 8 holds 0 blocks"),
        ({"patience": 2}, "`patience` needs `held_out`"),
        ({"source_share": 0.2}, "`source_text` and `source_share` belong together"),
        ({"objective": "poetry"}, "`objective` is one of"),
        ({"objective": "alm"}, "`teacher`"),
        ({"teacher": "smollm2"}, "`teacher` is for"),
        ({"restart_stage": True}, "`restart_stage` goes with `resume`"),
        ({"keep_adapter": True}, "`keep_adapter` needs one lora stage"),
        ({"dtype": "fp8"}, "`dtype`"),
        ({"weight_decay": 1.0}, "`weight_decay`"),
        ({"lora": LoraShape(0)}, "`lora.rank`"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tied: Path, text: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        vt.adapt(request(tied, text, tmp_path / "out", "tables:2:1e-2", **options))
    assert not list(tmp_path.iterdir())


def test_text_that_cannot_be_used_is_refused(tied: Path, text: Path, tmp_path: Path) -> None:
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text("\n\n \n")
    short.write_text("kort\n")
    for file, message in ((empty, "no text to train on"), (short, "has 4 tokens, less than one block of 16"),
                          (tmp_path / "none.txt", "does not exist")):  # fmt: skip
        with pytest.raises(VocabTransferError, match=message):
            vt.adapt(request(tied, file, tmp_path / "out", "tables:2:1e-2"))
    with pytest.raises(VocabTransferError, match="no text to score"):
        vt.adapt(request(tied, text, tmp_path / "out", "tables:2:1e-2", held_out=(empty,)))
    assert {path.name for path in tmp_path.iterdir()} == {"empty.txt", "short.txt"}


def test_models_that_cannot_be_adapted_are_refused(text: Path, tmp_path: Path, minilm_folder: Path) -> None:
    with pytest.raises(VocabTransferError, match="only causal language models"):
        vt.adapt(request(minilm_folder, text, tmp_path / "out", "tables:2:1e-2"))
    plain = make_model(tmp_path / "plain")
    (plain / "token_map.safetensors").unlink()
    with pytest.raises(VocabTransferError, match=r"no token_map.safetensors.*leave out the stage new"):
        vt.adapt(request(plain, text, tmp_path / "out", "new:2:1e-2"))
    (plain / "hydra.json").write_text("{}")
    with pytest.raises(UsageError, match="head export"):
        vt.adapt(request(plain, text, tmp_path / "out", "tables:2:1e-2"))
    (plain / "hydra.json").unlink()
    with pytest.raises(VocabTransferError, match="overlap"):
        vt.adapt(request(plain, text, plain / "out", "tables:2:1e-2"))
    tokenizer = json.loads((plain / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["too many"] = len(tokenizer["model"]["vocab"])
    (plain / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(VocabTransferError, match="does not fit"):
        vt.adapt(request(plain, text, tmp_path / "out", "tables:2:1e-2"))
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_an_adapter_is_what_peft_and_propagate_read(tied: Path, text: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    options: dict[str, Any] = {"held_out": (text,), "held_out_bytes": 300}
    stages = ("tables:3:1e-2", "lora:6:1e-2")
    vt.adapt(request(tied, text, tmp_path / "merged", *stages, **options))
    result = vt.adapt(request(tied, text, tmp_path / "adapter", *stages, keep_adapter=True, **options))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tied), tmp_path / "adapter").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, merged(ids).logits, atol=1e-5)
    base = vt.open_checkpoint(tied)
    donor = vt.open_adapted(tmp_path / "adapter", base)
    propagated = vt.propagate(base, donor, base, method="swap")
    propagated.save(tmp_path / "propagated")
    ours, theirs = parameters(tmp_path / "propagated"), parameters(tmp_path / "merged")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    again = vt.adapt(request(tied, text, tmp_path / "again", *stages, keep_adapter=True, **options))
    assert files(again.output) == files(result.output)


@pytest.mark.parametrize("objective", ["distill", pytest.param("alm", marks=pytest.mark.slow)])
def test_objectives_with_a_teacher_train_and_resume(tied: Path, text: Path, tmp_path: Path, objective: str) -> None:
    teacher = make_model(tmp_path / "teacher", seed=5)
    options: dict[str, Any] = {"objective": objective, "teacher": str(teacher), "batch_tokens": 128}
    whole = vt.adapt(request(tied, text, tmp_path / "whole", "new:4:1e-2", "tables:8:1e-2", **options))
    assert sum(whole.losses[1][-3:]) < sum(whole.losses[1][:3])
    assert whole.losses != vt.adapt(request(tied, text, tmp_path / "clm", "new:4:1e-2", "tables:8:1e-2")).losses
    with dying_after(7):
        vt.adapt(request(tied, text, tmp_path / "out", "new:4:1e-2", "tables:8:1e-2", **options))
    again = vt.adapt(request(tied, text, tmp_path / "out", "new:4:1e-2", "tables:8:1e-2", resume=True, **options))
    assert again.losses == whole.losses
    assert files(again.output) == files(whole.output)


def test_the_command_says_what_it_did(
    tied: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vocabtransfer_cli.main import run

    words = ["adapt", tied, "--text", text, "--held-out", text, "--held-out-bytes", 300, "--block", 16, "--cpu"]
    words += ["--batch-tokens", 64, "--stage", "new:2:1e-2", "tables:2:1e-2", "--output", tmp_path / "out"]
    run([str(word) for word in [*words, "--json"]])
    facts = json.loads(capsys.readouterr().out)
    assert facts["output"] == str(tmp_path / "out")
    assert [stage["updates"] for stage in facts["stages"]] == [2, 2]
    with pytest.raises(SystemExit) as stop:
        run([str(word) for word in words])
    assert stop.value.code == 1
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run(["adapt", str(tied), "--text", str(text), "--stage", "new:100:1e", "--output", str(tmp_path / "other")])
    assert stop.value.code == 2
    assert "new:100:1e" in capsys.readouterr().err  # and not a picture, which rich makes of what stands between colons
