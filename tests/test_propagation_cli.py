"""`vocabtransfer propagate` as a user runs it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from propagation_samples import MARKERS, Family, family

from vocabtransfer.checkpoint import open_checkpoint


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from vocabtransfer_cli.main import run as run_command

    with pytest.raises(SystemExit) as stop:
        run_command(["propagate", *(str(argument) for argument in arguments)])
        sys.exit(0)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture
def made(tmp_path: Path) -> Family:
    return family(tmp_path, dtype=torch.float32)


def models(made: Family) -> list[Any]:
    return ["--base", made.base.path, "--adapted", made.adapted.path, "--instruct", made.instruct.path]


def test_json(made: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code, text, _ = run(capsys, *models(made), "--output", out, "--method", "overlap", "--body-lambda", 0.5, "--json")
    facts = json.loads(text)
    assert code == 0 and facts["method"] == "overlap" and facts["output"] == str(out)
    assert facts["body"]["lambda"] == 0.5 and facts["appended"] == list(MARKERS)
    assert facts["bytes_written"] > 0 and open_checkpoint(out).layout.rows == facts["vocabulary"]


def test_table(made: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, *models(made), "--output", tmp_path / "out", "--no-append-missing")
    assert code == 0
    for words in (
        "conversion",
        "rank 8 of 8",
        "new, 4 pieces or more",
        "lambda 0, 0 tensors changed",
        "lacks 2 tokens",
    ):
        assert words in " ".join(text.split())


def test_overwrite(made: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*models(made), "--output", tmp_path / "out", "--method", "swap"]
    assert run(capsys, *arguments)[0] == 0
    code, _, error = run(capsys, *arguments)
    assert code == 1 and "exists already" in error
    assert run(capsys, *arguments, "--overwrite")[0] == 0


def test_restoring_layers(made: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--adapted", made.adapted.path, "--instruct", made.instruct.path, "--output", tmp_path / "out"]
    code, text, _ = run(capsys, *both, "--restore-layers", 1, "--restore-weight", 0.25)
    assert code == 0 and "1 first and last, weight 0.25" in text
    facts = json.loads((tmp_path / "out" / "restore.json").read_text())
    assert facts["layers"] == 1 and facts["weight"] == 0.25


def test_wrong_usage(made: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", tmp_path / "out"]
    without_base = models(made)[2:]
    cases = [
        ([*without_base, *out], 2, "--base is missing"),
        ([*models(made), *out, "--restore-layers", 1], 2, "leave --base out"),
        ([*models(made), *out, "--method", "procrustes"], 2, "--method is one of conversion, overlap, swap"),
        ([*models(made), *out, "--link", "soft"], 2, "--link is hard or copy, not 'soft'"),
        ([*without_base, "--base", tmp_path / "nowhere", *out], 2, "nowhere"),
        ([*without_base, "--base", made.adapted.path, *out], 2, "nothing to propagate"),
        ([*models(made), "--output", made.base.path, "--overwrite"], 1, "overlap"),
    ]
    for arguments, expected, words in cases:
        code, text, _ = run(capsys, *arguments, "--json")
        said = json.loads(text)
        assert (code, said["exit_code"]) == (expected, expected) and words in said["error"], (arguments, said)
    assert not (tmp_path / "out").exists()
