"""Files that appear whole: the old content or the new, and nothing beside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vocabtransfer.files.whole import whole_file, whole_path, write_whole

GONE = 999_999_999  # no system has a process of this number


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "settings.json"
    write_whole(path, "old\n")
    with whole_file(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old\n"
    assert path.read_bytes() == b"new" and names(path.parent) == ["settings.json"]


def test_an_error_or_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.svg"
    write_whole(path, b"old")
    for kind in (RuntimeError, KeyboardInterrupt, OSError):
        with pytest.raises(kind), whole_path(path) as part:
            assert part.suffix == ".svg"
            part.write_bytes(b"half")
            raise kind
    assert path.read_bytes() == b"old" and names(tmp_path) == ["table.svg"]


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from vocabtransfer.files.whole import whole_file
with whole_file(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "hydra.json"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(names(tmp_path)) == 1
    others = [f".hydra.json.{os.getppid()}.part", f".hydra.jsonx.{GONE}.part", ".hydra.json.x.part"]
    for name in others:
        (tmp_path / name).write_text("of a process that runs, of another file, of nobody")
    (tmp_path / f".hydra.json.{GONE}.part").write_text("as earlier versions called them")
    write_whole(path, "whole")
    assert names(tmp_path) == sorted([*others, "hydra.json"])
