"""Two processes train what one process trains, with DDP and with FSDP, and resume like it."""

import json
from pathlib import Path

import pytest
import torch
from adapt_samples import files, launch, make_model, parameters, request, write_text
from transformers import LlamaConfig

import vocabtransfer as vt
from vocabtransfer.training.processes import ModelShares

STAGES = ("new:3:1e-2", "tables:3:1e-2", "lora:3:1e-2", "all:3:1e-3")
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vocabtransfer_cli.main"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
MODULE = ["--module", "vocabtransfer_cli.main"]
CUT = {"PARALLELISM_CONFIG_TP_SIZE": "2"}
LAUNCHERS = {
    "torchrun": (TORCHRUN, {}),
    "torchrun-fsdp": (TORCHRUN, FSDP),
    "accelerate": ([*ACCELERATE, "--multi_gpu", *MODULE], {}),
    "accelerate-fsdp": ([*ACCELERATE, "--use_fsdp", "--fsdp_version", "2", *MODULE], {}),
}


def arguments(model: Path, text: Path, output: Path, *more: object) -> list[object]:
    words: list[object] = ["adapt", model, "--text", text, "--held-out", text, "--held-out-bytes", 300]
    for stage in STAGES:
        words += ["--stage", stage]
    words += ["--block", 16, "--batch-tokens", 64, "--eval-every", 2, "--cpu", "--json", "--output", output]
    return [*words, *more]


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_what_one_trains(tmp_path: Path, launcher: str, tied: bool) -> None:
    command, environment = LAUNCHERS[launcher]
    model = make_model(tmp_path / "model", tied=tied, dropout=0.0)
    text = write_text(tmp_path / "nl.txt")
    done = launch(command, *arguments(model, text, tmp_path / "two"), **environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["processes"] == 2
    torch.set_num_threads(1)
    one = vt.adapt(
        request(model, text, tmp_path / "one", *STAGES, held_out=(text,), held_out_bytes=300, evaluate_every=2)
    )
    for mine, theirs in zip(facts["curve"], one.facts["curve"], strict=True):
        assert mine["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"], rel=1e-4)
        assert mine["tokens"] == theirs["tokens"]
    ours, theirs = parameters(tmp_path / "two"), parameters(tmp_path / "one")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
    assert ("lm_head.weight" in ours) == (not tied)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, FSDP], ids=["ddp", "fsdp"])
def test_two_processes_resume_with_the_same_bytes(tmp_path: Path, environment: dict[str, str]) -> None:
    model, text = make_model(tmp_path / "model"), write_text(tmp_path / "nl.txt")
    whole = launch(TORCHRUN, *arguments(model, text, tmp_path / "whole"), **environment)
    assert whole.returncode == 0, whole.stderr
    # A learning rate that diverges stops the run in the middle of its second stage.
    broken = [*arguments(model, text, tmp_path / "out"), "--save-every", 1]
    place = broken.index(STAGES[3])
    broken[place] = "all:3:1e30"
    stopped = launch(TORCHRUN, *broken, **environment)
    assert stopped.returncode == 1
    assert "NaN or infinite" in stopped.stdout + stopped.stderr
    done = launch(TORCHRUN, *arguments(model, text, tmp_path / "out", "--resume", "--restart-stage"), **environment)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_model_learns_what_a_whole_one_learns(tmp_path: Path, tied: bool) -> None:
    model = make_model(tmp_path / "model", tied=tied, dropout=0.0, key_heads=2)
    text, stages = write_text(tmp_path / "nl.txt"), (STAGES[0], STAGES[1], STAGES[3])
    words = [word for word in arguments(model, text, tmp_path / "cut") if word not in ("--stage", *STAGES)]
    words += [word for stage in stages for word in ("--stage", stage)]
    done = launch(TORCHRUN, *words, **CUT)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    torch.set_num_threads(1)
    one = vt.adapt(
        request(model, text, tmp_path / "one", *stages, held_out=(text,), held_out_bytes=300, evaluate_every=2)
    )
    for mine, theirs in zip(facts["curve"], one.facts["curve"], strict=True):
        assert mine["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"], rel=1e-4)
        assert mine["tokens"] == theirs["tokens"]
    ours, theirs = parameters(tmp_path / "cut"), parameters(tmp_path / "one")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
    assert facts["stages"][0]["first_loss"] == pytest.approx(one.facts["stages"][0]["first_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("shares", "heads", "said"),
    [
        (ModelShares(2, 2), 2, "cut in 2 parts needs 2 processes, not 4"),
        (ModelShares(4, 1), 4, "num_key_value_heads is 2, which cannot be held in 4 parts"),
    ],
)
def test_what_cannot_be_cut_is_said(shares: ModelShares, heads: int, said: str) -> None:
    config = LlamaConfig(num_attention_heads=heads, num_key_value_heads=2, hidden_size=16)
    with pytest.raises(vt.VocabTransferError, match=said):
        shares.check(config)


@pytest.mark.slow
def test_processes_need_a_block_each(tmp_path: Path) -> None:
    model, text = make_model(tmp_path / "model"), write_text(tmp_path / "nl.txt")
    done = launch(TORCHRUN, *arguments(model, text, tmp_path / "out", "--batch-tokens", 48))
    assert done.returncode == 1
    assert "a block for each of 2 processes" in done.stdout
