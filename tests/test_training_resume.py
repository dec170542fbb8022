"""A run that is stopped, by whatever means, goes on with the same bits; one that cannot go on says why."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adapt_samples import Stop, dying_after, files, make_model, one_thread, request, write_text

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.training.objectives import LanguageModelling

STAGES = ("new:5:1e-2", "tables:7:1e-2", "lora:6:1e-2", "all:3:1e-3")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "nl.txt")


@pytest.fixture(scope="module")
def whole(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[vt.AdaptResult, Path]:
    """A run that nobody interrupted."""
    output = tmp_path_factory.mktemp("whole") / "out"
    return vt.adapt(request(model, text, output, *STAGES, held_out=(text,), held_out_bytes=600)), output


@pytest.mark.slow  # the run that dies many times is compared with the same bytes
def test_the_same_run_gives_the_same_bytes(
    model: Path, text: Path, whole: tuple[vt.AdaptResult, Path], tmp_path: Path
) -> None:
    again = vt.adapt(request(model, text, tmp_path / "out", *STAGES, held_out=(text,), held_out_bytes=600))
    assert again.losses == whole[0].losses
    assert files(again.output) == files(whole[1])
    other = vt.adapt(request(model, text, tmp_path / "other", *STAGES, held_out=(text,), held_out_bytes=600, seed=1))
    assert other.losses != whole[0].losses


def test_a_run_that_dies_many_times_gives_the_same_bytes(
    model: Path, text: Path, whole: tuple[vt.AdaptResult, Path], tmp_path: Path
) -> None:
    wanted = request(model, text, tmp_path / "out", *STAGES, held_out=(text,), held_out_bytes=600, resume=True)
    # Every life makes a few updates more than lie between two checkpoints, and ends in another place of a stage.
    for life in (3, 5, 4, 1, 4):
        with dying_after(life):
            vt.adapt(wanted)
        assert not wanted.output.exists()
    result = vt.adapt(wanted)
    assert result.losses == whole[0].losses
    assert result.facts["curve"] == whole[0].facts["curve"]
    assert files(result.output) == files(whole[1])
    assert not (tmp_path / "out.adapting").exists()


def command(model: Path, text: Path, output: Path) -> list[str]:
    words = [
        sys.executable,
        "-m",
        "vocabtransfer_cli.main",
        "adapt",
        model,
        "--text",
        text,
        "--output",
        output,
        "--cpu",
    ]
    for stage in (STAGES[0], "tables:4000:1e-2"):
        words += ["--stage", stage]
    words += ["--block", 16, "--batch-tokens", 64, "--save-every", 2, "--resume", "--json"]
    return [str(word) for word in words]


def start_and_wait(words: list[str], state: Path, updates: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if (state / "stage-0.json").exists() and any(int(p.name[7:]) >= updates for p in state.glob("update-*")):
            return process
        time.sleep(0.01)
    process.kill()
    raise AssertionError(process.communicate())


# test_a_run_that_dies_many_times_gives_the_same_bytes dies in this process, which is quicker.
@pytest.mark.slow
def test_kill_9_and_ctrl_c_lose_nothing(model: Path, text: Path, tmp_path: Path) -> None:
    output, state = tmp_path / "out", tmp_path / "out.adapting"
    process = start_and_wait(command(model, text, output), state, 10)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process = start_and_wait(command(model, text, output), state, 20)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Interrupted after update" in said and "--resume" in said
    assert not output.exists()
    reached = max(int(path.name[7:]) for path in state.glob("update-*"))
    assert str(reached) in said  # Ctrl-C saves where it stops, not where the last checkpoint was
    # What the killed runs left behind continues exactly as a run that was never killed.
    stages = ("new:5:1e-2", "tables:4000:1e-2")
    for folder in (output, tmp_path / "clean"):
        with dying_after(5 + reached + 8 if folder.name == "clean" else 8):
            vt.adapt(request(model, text, folder, *stages, evaluate_every=100, resume=True))
    pair = [latest(tmp_path / f"{name}.adapting", reached + 8) for name in ("out", "clean")]
    assert pair[0] == pair[1]


def test_dying_while_an_old_checkpoint_is_removed_loses_nothing(model: Path, text: Path, tmp_path: Path) -> None:
    wanted, state = request(model, text, tmp_path / "out", "tables:6:1e-2", resume=True), tmp_path / "out.adapting"
    own = shutil.rmtree

    def half(path: Any, *arguments: Any, **options: Any) -> None:
        if not Path(path).name.startswith("update-"):
            return own(path, *arguments, **options)
        (Path(path) / "progress.json").unlink(missing_ok=True)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(shutil, "rmtree", half)
        vt.adapt(wanted)
    assert [path.name for path in sorted(state.glob("update-*"))] == ["update-00000002", "update-00000004"]
    with dying_after(0):
        vt.adapt(wanted)
    assert [path.name for path in state.glob("update-*")] == ["update-00000004"]
    resumed = vt.adapt(wanted)
    direct = vt.adapt(request(model, text, tmp_path / "direct", "tables:6:1e-2"))
    assert resumed.losses == direct.losses and files(resumed.output) == files(direct.output)


def latest(state: Path, update: int) -> dict[str, bytes]:
    return files(state / f"update-{update // 2 * 2:08}")


def test_another_setting_or_text_is_refused(model: Path, text: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with dying_after(8):
        vt.adapt(request(model, text, output, *STAGES))
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    other = write_text(tmp_path.parent / f"{tmp_path.name}-other.txt", seed=2)
    larger = make_model(tmp_path.parent / f"{tmp_path.name}-other-model", seed=4)
    refused: list[tuple[str, dict[str, Any]]] = [
        ("`block` 16, not 32", {"block": 32}),
        ("`seed` 0, not 1", {"seed": 1}),
        ("`batch_tokens`", {"batch_tokens": 128}),
        ("another `text`", {"text": other}),
        ("another `model`", {"model": larger}),
        ("another `stages`", {"stages": ("new:5:1e-2", "tables:7:2e-2")}),
        ("another `stages`", {"stages": ("new:5:1e-2",)}),
    ]
    for message, change in refused:
        stages = change.pop("stages", STAGES)
        changed = request(change.pop("model", model), change.pop("text", text), output, *stages, resume=True, **change)
        with pytest.raises(UsageError, match=message):
            vt.adapt(changed)
    with pytest.raises(VocabTransferError, match="holds a run that was interrupted: go on with `resume`"):
        vt.adapt(request(model, text, output, *STAGES))
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    # Stages that have not begun may be changed; the one in progress only when it is begun again.
    later = (*STAGES[:2], "outer:3:1e-3")
    with dying_after(0):
        vt.adapt(request(model, text, output, *later, resume=True))
    result_stages = ("new:5:1e-2", "tables:3:2e-2")
    result = vt.adapt(request(model, text, output, *result_stages, resume=True, restart_stage=True))
    assert [len(losses) for losses in result.losses] == [5, 3]
    direct = vt.adapt(request(model, text, tmp_path / "direct", *result_stages))
    assert files(result.output) == files(direct.output)


def test_overwrite_begins_anew(model: Path, text: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with dying_after(10):
        vt.adapt(request(model, text, output, *STAGES))
    first = vt.adapt(request(model, text, output, "tables:2:1e-2", overwrite=True))
    assert [len(losses) for losses in first.losses] == [2]
    with pytest.raises(VocabTransferError, match="exists already"):
        vt.adapt(request(model, text, output, "tables:3:1e-2"))
    assert len(vt.adapt(request(model, text, output, "tables:3:1e-2", overwrite=True)).losses[0]) == 3


def test_running_out_of_memory_is_one_sentence_and_resumable(model: Path, text: Path, tmp_path: Path) -> None:
    def fail(error: BaseException) -> Any:
        own, made = LanguageModelling.loss, [0]

        def loss(self: Any, *arguments: Any) -> Any:
            made[0] += 1
            if made[0] == 5:
                raise error
            return own(self, *arguments)

        return loss

    errors = (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    for error in errors:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LanguageModelling, "loss", fail(error))
            with pytest.raises(VocabTransferError, match=r"not enough memory.*`resume`.*`gradient_checkpointing`"):
                vt.adapt(request(model, text, tmp_path / "out", "tables:12:1e-2", resume=True))
    resumed = vt.adapt(request(model, text, tmp_path / "out", "tables:12:1e-2", resume=True))
    direct = vt.adapt(request(model, text, tmp_path / "direct", "tables:12:1e-2"))
    assert resumed.losses == direct.losses
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModelling, "loss", fail(RuntimeError("something else")))
        with pytest.raises(VocabTransferError, match="something else"):
            vt.adapt(request(model, text, tmp_path / "third", "tables:12:1e-2"))


def test_a_loss_that_is_not_a_number_ends_the_run_with_the_way_out(model: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabTransferError, match=r"NaN or infinite at update \d+ of stage all.*`restart_stage`"):
        vt.adapt(request(model, text, tmp_path / "out", "tables:4:1e-2", "all:20:1e30"))
    assert not (tmp_path / "out").exists()
    result = vt.adapt(
        request(model, text, tmp_path / "out", "tables:4:1e-2", "all:4:1e-3", resume=True, restart_stage=True)
    )
    assert result.losses[1][-1] < 10


def test_resume_with_nothing_to_resume_begins(model: Path, text: Path, tmp_path: Path) -> None:
    assert vt.adapt(request(model, text, tmp_path / "out", "tables:2:1e-2", resume=True)).written is not None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_runs_do_not_share_a_state(model: Path, text: Path, tmp_path: Path) -> None:
    from vocabtransfer.training.state import State

    wanted = request(model, text, tmp_path / "out", "tables:4:1e-2", resume=True)
    with dying_after(3):
        vt.adapt(wanted)
    with State(tmp_path / "out.adapting") as other:
        other._hold()
        for changes in ({}, {"resume": False, "overwrite": True}):
            with pytest.raises(VocabTransferError, match="still going on"):
                vt.adapt(replace(wanted, **changes))
    assert len(vt.adapt(wanted).losses[0]) == 4


def test_a_full_disk_is_told_before_training(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vocabtransfer.training import state

    monkeypatch.setattr(state, "CHECKPOINTS", 1 << 60)
    with pytest.raises(VocabTransferError, match=r"GB for checkpoints.*go on with `resume`"):
        vt.adapt(request(model, text, tmp_path / "out", "tables:4:1e-2"))
    assert not (tmp_path / "out").exists()
