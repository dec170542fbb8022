"""A build that cannot be, or is stopped, says so in a sentence and leaves what a person had as it was."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command_samples import command

import vocabtransfer as vt


def bad(tiny: Path, corpus: Path, folder: Path) -> dict[str, tuple[Sequence[object], int, str]]:
    (folder / "short.en").write_text("one\ntwo\n")
    (folder / "short.tt").write_text("бер\n")
    (folder / "empty.tsv").write_text("")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "exists").mkdir()
    (folder / "exists" / "mine.txt").write_text("keep me")
    usual = ("build", "--source", tiny, "--target", "tatar", "--output", folder / "out")
    corpora = (*usual, "--parallel")
    return {
        "language": (("build", "--source", tiny, "--target", "tattar", "--parallel", corpus), 2, "atar"),
        "alias": (("build", "--source", "smollm22", "--target", "tatar"), 2, "smollm2"),
        "method": ((*corpora, corpus, "--method", "tokenise"), 2, "method"),
        "no file": ((*corpora, folder / "none.tsv"), 2, r"none\.tsv"),
        "unequal": ((*corpora, folder / "short.en", "--parallel", folder / "short.tt"), 1, r"short\.(en|tt)"),
        "empty": ((*corpora, folder / "empty.tsv"), 1, r"empty\.tsv"),
        "binary": ((*usual, "--parallel", corpus, "--text", folder / "binary.txt"), 1, r"binary\.txt"),
        "both": ((*corpora, corpus, "--corpus", folder), 2, "--corpus"),
        "table": ((*usual, "--alignment", corpus), 1, r"en-tt\.tsv"),
        "exists": ((*corpora, corpus, "--output", folder / "exists"), 1, "exists"),
        "not ours": ((*corpora, corpus, "--output", folder / "exists", "--overwrite"), 1, "exists"),
        "size": ((*corpora, corpus, "--vocab-size", 10), 2, "10"),
        "columns": ((*corpora, corpus, "--columns", "a"), 2, "--columns"),
        "option": (("build", "--sauce", "x"), 2, "--sauce"),
        "inspect": (("inspect", folder / "exists", "x"), 1, "token_map"),
    }


CASES = (
    *("alias", "binary", "both", "columns", "empty", "exists", "inspect", "language"),
    *("method", "no file", "not ours", "option", "size", "table", "unequal"),
)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    case: str,
    tiny_llama: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected, pattern = bad(tiny_llama, corpus, tmp_path)[case]
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command(capsys, *arguments, "--json")
    assert code == expected, out + err
    message = json.loads(out)["error"]
    assert "Traceback" not in err and "Unexpected" not in message
    assert "\n" not in message
    assert re.search(pattern, message), message
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "exists" / "mine.txt").read_text() == "keep me"


@pytest.mark.slow  # by default the interrupts come from inside, at each moment
def test_ctrl_c_leaves_all_or_nothing(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vocabtransfer_cli.main", "build", "--source", str(tiny_llama), "--target", "tt"]
    command += ["--parallel", str(corpus), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # Interrupted while the result is being written, however fast the machine is.
    while process.poll() is None and not list(tmp_path.glob(".out.partial-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    # On a busy machine the build may be done before the signal reaches it.
    done = process.returncode == 0
    assert done or (process.returncode == 1 and "Interrupted" in err), err
    assert "Traceback" not in err, err
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ["out"] if done else left in ([], ["out"])
    if left:  # the signal came after the last rename: the checkpoint is whole
        vt.open_checkpoint(str(tmp_path / "out"))


@pytest.mark.parametrize(
    "moment",
    [
        "vocabtransfer.pipeline.build.open_checkpoint",
        "vocabtransfer.pipeline.target_tokenizer.train_tokenizer",
        "vocabtransfer.surgery.transfer.hidden_states",
        "vocabtransfer.surgery.tables.NewTables.rows",
        "vocabtransfer.pipeline.report.render_page",
        "vocabtransfer.pipeline.build.prove_beside",
    ],
)
def test_an_interrupt_at_any_moment_leaves_all_or_nothing(
    moment: str,
    tiny_llama: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupted)
    code, out, err = command(
        capsys, "build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus, "--output", tmp_path / "out"
    )
    assert code == 1 and "Interrupted" in out + err and "Traceback" not in out + err
    left = sorted(path.name for path in tmp_path.iterdir())
    # Before the last rename there is nothing, and the proof runs before it.
    assert left == []
    if left:
        vt.open_checkpoint(str(tmp_path / "out"))


def test_a_result_that_fails_its_proof_replaces_nothing(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old result stays byte for byte; without one, nothing appears."""
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    # Every value is possible, but the weights were not made for them.
    (broken / "config.json").write_text(json.dumps({**config, "head_dim": 4}))
    out = tmp_path / "out"
    arguments = ("--target", "tt", "--parallel", corpus, "--vocab-size", 600, "--output", out, "--no-calibrate")
    for before in ("nothing", "a good result"):
        if before == "a good result":
            code, _, err = command(capsys, "build", "--source", tiny_llama, *arguments)
            assert code == 0, err
        files = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        code, _, err = command(capsys, "build", "--source", broken, *arguments, "--overwrite")
        assert code == 1 and "does not load" in err and "Traceback" not in err
        assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == files
        assert not list(tmp_path.glob(".*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_too_small_is_known_before_anything_is_written(
    tiny_llama: Path, corpus: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus)
    code, out, err = command(capsys, *words, "--output", small_disk / "out", "--json")
    assert code == 1, err
    assert re.search(r"needs .*(free|room|space)", json.loads(out)["error"])
    assert list(small_disk.iterdir()) == []
