"""Atomic folders: whatever happens to the process, and whenever, the target is the old state or the new one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from thinned import first_of

from vocabtransfer.checkpoint import Checkpoint, VocabTensor, convert, open_checkpoint, write_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files import staging
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import check_target, settled, staged_folder
from vocabtransfer.tokenization.save import save_tokenizer

TOKENIZER = toy_tokenizer(["hello"])
CONFIG = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 8},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": len(TOKENIZER)},
}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests kill forked children")


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    folder = write_hollow_checkpoint(tmp_path / "models" / "source", CONFIG, shard_bytes=2000, seed=1)
    save_tokenizer(TOKENIZER, folder)
    opened = open_checkpoint(folder)
    assert opened.vocabulary and len(opened.shards) > 1
    return opened


def write_whole(source: Checkpoint, target: Path, value: float, overwrite: bool) -> None:
    def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        return torch.full((stop - start, 8), value)

    write_checkpoint(source, target, tokenizer=TOKENIZER, rows=rows, overwrite=overwrite)


def write_plainly(_source: Checkpoint, target: Path, value: float, overwrite: bool) -> None:
    """The same without a model: only what makes the folder appear."""
    with staged_folder(target, overwrite) as folder:
        (folder / "config.json").write_text(str(value))
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(bytes(1000))
        write_manifest(folder, {})


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.link", "os.rmdir", "os.remove", "shutil.rmtree", "ctypes.dlsym")


def count_down(folder: Path, number: int, act: Callable[[], None]) -> list[int]:
    """Do something just before the process's ``number``-th operation on files below a folder."""
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILE_EVENTS and (event == "ctypes.dlsym" or str(folder) in str(arguments[0])):
            seen[0] += 1
            if seen[0] == number:
                act()

    sys.addaudithook(hook)
    return seen


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            work()
            code = 0
        except KeyboardInterrupt:
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


@needs_fork
@pytest.mark.parametrize("way", first_of(["new", "exchange", "two renames"], "exchange"))
@pytest.mark.parametrize("act", [kill, interrupt], ids=["killed", "interrupted"])
@pytest.mark.parametrize("write", [write_plainly, pytest.param(write_whole, marks=pytest.mark.slow)])
def test_stopped_at_any_moment(
    write: Callable[..., None],
    way: str,
    act: Callable[[], None],
    source: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if way == "two renames":
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    home = tmp_path / "out"
    home.mkdir()
    target = home / "target"
    write(source, home / "wanted", 2.0, overwrite=False)
    new = snapshot(home / "wanted")
    old: dict[str, bytes] = {}
    if way != "new":
        write(source, target, 1.0, overwrite=False)
        old = snapshot(target)
        assert old != new
    states = set()
    moment, finished = 1, False
    while not finished:

        def work(moment: int = moment) -> None:
            count_down(home, moment, act)
            write(source, target, 2.0, overwrite=way != "new")

        finished = in_child(work) == 0
        now = snapshot(target)
        absent = way == "two renames" and not target.exists()
        assert now in (old, new) or absent
        states.add("absent" if absent else "new" if now == new else "old")
        if absent:
            (previous,) = home.glob(".target.previous-*")
            assert snapshot(previous) == old
        if act is interrupt:
            assert not list(home.glob(".target.*")) and not absent
        if not finished and now == new and way != "new":
            write(source, target, 1.0, overwrite=True)  # back to the old state; also clears what the child left
            assert snapshot(target) == old
        elif not finished and now == new:
            with staged_folder(home / "other"):
                pass
            remove(target)
        moment += 1
    assert {"old", "new"} <= states and moment > (40 if write is write_whole else 15)
    write(source, target, 2.0, overwrite=True)
    assert snapshot(target) == new and not list(home.glob(".target.*"))


def remove(folder: Path) -> None:
    staging._remove(folder)


def test_killed_process_leaves_no_folder_that_loads(tmp_path: Path) -> None:
    """The same with a process of its own, killed while it writes rows."""
    script = """
import os, signal, sys, torch
from pathlib import Path
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import staged_folder
with staged_folder(Path(sys.argv[1])) as folder:
    (folder / "config.json").write_text("{}")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    target = tmp_path / "target"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, str(target)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    (partial,) = tmp_path.glob(".target.partial-*")
    with staged_folder(target) as folder:
        (folder / "a").write_text("x")
    assert not partial.exists() and snapshot(target) == {"a": b"x"}


@needs_fork
def test_a_partial_folder_of_a_running_process_is_left_alone(tmp_path: Path) -> None:
    ready, done = os.pipe(), os.pipe()

    def work() -> None:
        with staged_folder(tmp_path / "target") as folder:
            (folder / "theirs").write_text("x")
            os.write(ready[1], b"x")
            os.read(done[0], 1)

    thread = threading.Thread(target=lambda: results.append(in_child(work)))
    results: list[int] = []
    thread.start()
    os.read(ready[0], 1)
    (theirs,) = tmp_path.glob(".target.partial-*")
    # Even when its process number says nothing here, as in another container, the lock does.
    renamed = theirs.with_name(".target.partial-999999999")
    theirs.rename(renamed)
    refused = pytest.raises(VocabTransferError, match="target is being written by another process")
    with refused, staged_folder(tmp_path / "target"):
        pass
    with staged_folder(tmp_path / "Target") as folder:
        (folder / "ours").write_text("x")
    with refused, staged_folder(tmp_path / "TARGET", any_case=True):
        pass
    assert renamed.is_dir()
    renamed.rename(theirs)
    os.write(done[1], b"x")
    thread.join()
    assert results == [0], "the first to begin must not be hindered by the second"
    assert snapshot(tmp_path / "target") == {"theirs": b"x"} and not theirs.exists()


@needs_fork
def test_of_many_writers_at_once_one_wins(tmp_path: Path) -> None:
    """Eight begin together; all but one are refused in a sentence, and nothing is left of them."""
    go, hold, results = os.pipe(), os.pipe(), []

    def work() -> None:
        os.read(go[0], 1)
        with staged_folder(tmp_path / "target") as folder:
            (folder / "a").write_text(str(os.getpid()))
            os.read(hold[0], 1)

    def refused_or_done() -> None:
        try:
            work()
        except VocabTransferError:
            os._exit(3)

    threads = [threading.Thread(target=lambda: results.append(in_child(refused_or_done))) for _ in range(8)]
    for thread in threads:
        thread.start()
    os.write(go[1], b"x" * 8)
    while len(results) < 7:
        time.sleep(0.01)
    os.write(hold[1], b"x")
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, *[3] * 7]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_two_writers_in_one_process(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "target") as folder:
        (folder / "a").write_text("x")
        second = staged_folder(tmp_path / "target")
        with pytest.raises(VocabTransferError, match="another part of this process"), second:
            pass
    assert snapshot(tmp_path / "target") == {"a": b"x"}


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "deep" / "er" / "target") as folder:
        (folder / "a").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_names_with_glob_characters(tmp_path: Path) -> None:
    for name in ("a[1]*", "a?", "ünï çode"):
        stale = tmp_path / f".{name}.partial-999999999"
        stale.mkdir()
        with staged_folder(tmp_path / name) as folder:
            (folder / "x").write_text("x")
        assert (tmp_path / name / "x").is_file() and not stale.exists()


def test_other_folders_are_not_cleared_up(tmp_path: Path) -> None:
    others = [".target.partial-", ".target.partial-12x", ".target2.partial-999999999", "target.partial-999999999"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".target.partial-999999998").write_text("a file")
    with staged_folder(tmp_path / "target") as folder:
        (folder / "x").write_text("x")
    assert all((tmp_path / name).is_dir() for name in others) and (tmp_path / ".target.partial-999999998").is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused = pytest.raises(VocabTransferError, match="could not be written: Permission denied")
    with refused, staged_folder(tmp_path / "target"):
        pass


def test_relative_and_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settled(Path("x")) == tmp_path / "x"
    assert settled(Path("a/../b")) == tmp_path / "b"
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert settled(Path()) == tmp_path / "sub" and settled(Path("..")) == tmp_path


# --- what may be overwritten ----------------------------------------------------------------------------------------


def test_overwriting_is_for_unchanged_folders_only(source: Checkpoint, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def fresh() -> None:
        staging._remove(target)
        write_whole(source, target, 1.0, overwrite=False)
        check_target(target, overwrite=True)

    def refused() -> str:
        with pytest.raises(VocabTransferError) as caught:
            write_whole(source, target, 2.0, overwrite=True)
        return str(caught.value)

    fresh()
    (target / "notes.txt").write_text("mine")
    assert "notes.txt is not from" in refused() and (target / "notes.txt").read_text() == "mine"
    fresh()
    (target / "checkpoint-500").mkdir()
    (target / "checkpoint-500" / "optimizer.pt").write_text("weeks")
    assert "optimizer.pt is not from" in refused()
    fresh()
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config))
    assert "config.json was changed since" in refused()
    fresh()
    (target / "link").symlink_to("/etc/hostname")
    assert "link is not from" in refused()
    fresh()
    (target / "vocabtransfer.json").write_text("{")
    assert "vocabtransfer.json is damaged" in refused()
    fresh()
    (target / "LICENSE").unlink(missing_ok=True)
    (target / "chat_template.jinja").unlink(missing_ok=True)
    write_whole(source, target, 2.0, overwrite=True)


def test_weights_trained_in_place_are_not_overwritten(
    source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files are not hashed; their date tells."""
    monkeypatch.setattr("vocabtransfer.files.manifest.HASHED_BYTES", 1000)
    write_whole(source, tmp_path / "target", 1.0, overwrite=False)
    check_target(tmp_path / "target", overwrite=True)
    weights = next(f for f in sorted((tmp_path / "target").glob("*.safetensors")) if f.stat().st_size > 1000)
    later = (tmp_path / "target" / "vocabtransfer.json").stat().st_mtime + 60
    os.utime(weights, (later, later))
    with pytest.raises(VocabTransferError, match=f"{weights.name} was changed since"):
        write_whole(source, tmp_path / "target", 2.0, overwrite=True)


def test_a_conversion_that_another_process_makes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path))
    other = """
import sys
from vocabtransfer.checkpoint.convert import cached_folder
def build(folder):
    print("begun", flush=True)
    sys.stdin.read()
    (folder / "config.json").write_text("theirs")
cached_folder("model", build)
"""
    command = [sys.executable, "-c", other]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "begun\n"
        monkeypatch.setattr(convert, "_LOOK_SECONDS", 0.01)
        looks = []

        def look(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 2:
                child.stdin.close()  # type: ignore[union-attr]
            time.sleep(seconds)

        monkeypatch.setattr(convert, "time", SimpleNamespace(sleep=look))
        found = convert.cached_folder("model", lambda folder: (folder / "config.json").write_text("ours"))
    assert (found / "config.json").read_text() == "theirs"
    assert len(looks) >= 2


def test_a_conversion_whose_process_died_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path))
    other = """
import os
from vocabtransfer.checkpoint.convert import cached_folder
cached_folder("model", lambda folder: os._exit(1))
"""
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 1
    found = convert.cached_folder("model", lambda folder: (folder / "config.json").write_text("ours"))
    assert (found / "config.json").read_text() == "ours"
    assert [path.name for path in found.parent.iterdir() if "partial" in path.name] == []
