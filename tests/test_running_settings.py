"""Where models run, said once for everything inside; little memory means layer by layer, not other numbers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner
from vocabtransfer_cli.main import app

import vocabtransfer as vt
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.leaderboard.measuring import load_model
from vocabtransfer.running.memory import fits_in_memory
from vocabtransfer.running.plan import needs_memory, plan_run
from vocabtransfer.running.settings import run_settings, running_with

WORDS = {"house": 40.0, "green": 20.0, "river": 12.0, "evening": 9.0, "under": 30.0, "bridge": 7.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    tokenizer = AutoTokenizer.from_pretrained(open_checkpoint("smollm2").path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_is_said_once_holds_inside(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    assert not plan_run(checkpoint).streamed
    with running_with("cpu", "bfloat16", 1000):
        plan = plan_run(checkpoint)
        assert (plan.streamed, plan.dtype, plan.free) == (True, torch.bfloat16, 1000)
        assert plan_run(checkpoint, dtype="float32", memory=10**9).dtype == torch.float32
        assert not fits_in_memory(checkpoint.parameters)
        with running_with():
            assert not plan_run(checkpoint).streamed
    assert run_settings().memory is None and fits_in_memory(checkpoint.parameters)


def test_a_long_run_says_how_long(source: Path) -> None:
    plan = plan_run(open_checkpoint(source))
    assert plan.seconds(2000) == pytest.approx(2 * plan.seconds(1000))
    large = plan.__class__("large", "cpu", torch.float32, True, 32 * 10**9, 10**9, 6 * 10**9)
    assert re.search(r"(minutes|hours) or more for 2,000,000 tokens", large.sentence(2_000_000))
    assert "tokens" not in plan.sentence(10)


def test_little_memory_gives_the_same_calibration(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    tokenizer = vt.train_tokenizer(WORDS, like=checkpoint.tokenizer, vocab_size=300)
    shifts = []
    for memory in (None, 1000):
        with running_with(memory=memory):
            made = vt.transfer(checkpoint, tokenizer, vt.Evidence(words=WORDS), method="pieces", calibrate=True)
        assert made.initialization.shift is not None
        shifts.append(made.initialization.shift)
    assert np.array_equal(shifts[0].amounts, shifts[1].amounts)
    assert np.array_equal(shifts[0].direction, shifts[1].direction)


def test_the_commands_take_device_precision_and_memory(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The green house stands under the bridge by the river.\n" * 3)
    scores = []
    for options in ([], ["--memory", "100KB"], ["--device", "cpu", "--dtype", "bfloat16"]):
        result = CliRunner().invoke(app, ["evaluate", str(source), "--text", str(text), "--json", *options])
        assert result.exit_code == 0, result.output
        scores.append(json.loads(result.stdout)["bits_per_byte"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    assert scores[0] != scores[2] and scores[0] == pytest.approx(scores[2], rel=0.02)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "cuda:7"], "cuda:7"),
        (["--device", "gpu"], "choose auto, cpu, cuda"),
        (["--dtype", "int3"], "float32, bfloat16, float16"),
        (["--memory", "much"], "write it as 6GB"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "build"])
def test_what_is_not_there_is_one_sentence(
    command: str, options: list[str], said: str, source: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The green house.\n")
    given = [str(source), "--text", str(text)]
    if command == "build":
        given = ["--source", *given, "--target", "dutch", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [command, *given, *options])
    assert isinstance(result.exception, vt.VocabTransferError) and said in str(result.exception)
    assert not (tmp_path / "out").exists()


MODEL_COMMANDS = (
    *("build", "apply", "evaluate", "leaderboard", "adapt", "calibrate", "generate", "translate", "serve"),
    "align corpus",
)


@pytest.mark.parametrize("command", MODEL_COMMANDS)
def test_every_command_that_runs_a_model_asks_where(command: str) -> None:
    said = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    assert "--device" in said and ("--dtype" in said or command == "align corpus")


def test_every_command_refuses_a_device_that_is_not_there(source: Path, tmp_path: Path) -> None:
    text, pairs, saved = tmp_path / "text.txt", tmp_path / "pairs.tsv", tmp_path / "out"
    text.write_text("The green house stands under the bridge by the river.\n" * 50)
    pairs.write_text("".join(f"the house {i}\tkuća broj {i}\n" for i in range(30)))
    common = ["--text", str(text), "--output", str(saved)]
    for words in (
        ["adapt", str(source), *common, "--stage", "tables:1:1e-4"],
        ["leaderboard", "--source", str(source), "--target", "croatian", "--parallel", str(pairs), "--method", "mean"],
        ["generate", str(source), "The green"],
        [
            *("align", str(pairs), "--target", "croatian", "--output", str(tmp_path / "t.tsv.gz")),
            *("--aligner", "neural", "--model", str(source)),
        ],
    ):
        result = CliRunner().invoke(app, [*words, "--device", "cuda:7"])
        assert isinstance(result.exception, vt.VocabTransferError), (words, result.output)
        assert "cuda:7" in str(result.exception)
    assert not saved.exists()


def test_reports_say_where_models_ran(source: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The green house stands under the bridge by the river.\n" * 60)
    words = ["build", "--source", str(source), "--target", "dutch", "--text", str(text), "--method", "pieces"]
    words += ["--vocabulary", "replace", "--vocab-size", "300", "--output", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, [*words, "--device", "cpu", "--dtype", "bfloat16"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["running"] == json.loads(result.stdout)["running"] == {"device": "cpu", "dtype": "bfloat16"}
    told = CliRunner().invoke(app, ["evaluate", str(source), "--text", str(text), "--json"])
    assert json.loads(told.stdout)["dtype"] == "float32"


def test_work_that_does_not_fit_is_refused_before_it_begins(source: Path) -> None:
    assert needs_memory("Training x", 10**6, "cpu").startswith("Training x needs 0.0 GB of ")
    with running_with(memory=1000), pytest.raises(vt.VocabTransferError, match=r"needs 5.0 GB of 0.0 GB free on cpu"):
        needs_memory("Training x", 5 * 10**9, "cpu")
    with running_with(memory=1000), pytest.raises(vt.VocabTransferError, match="Measuring on"):
        load_model(open_checkpoint(source))
