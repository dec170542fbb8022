"""Every example of the README and of docs/ is run, page by page, with small models and texts of the names they use."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from docs_samples import EXCHANGED, Place, services_here
from test_docs import PAGES
from typer.testing import CliRunner
from vocabtransfer_cli.main import app

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Lines that are not run, by how they begin, and why.
NOT_RUN: Mapping[str, str] = {
    "make ": "the first check of every submission, .ci/run, calls make demo, test, check and docs",
    "pip install": "installs from the network; `make install` does the same",
    "ollama create": "needs Ollama; what it reads is checked in test_export_other.py",
    "vocabtransfer serve": "runs until it is stopped; test_serving_openai.py asks the same addresses",
    "vocabtransfer evaluate smollm2-dutch": "tasks of lm-eval come from a hub; test_suite.py runs one of its own",
    "vocabtransfer build --source qwen3-0.6b": "models of a hub; test_family.py does the same with small ones",
    "vocabtransfer apply qwen3-0.6b-tatar": "goes on from the line above",
    "curl localhost": "asks the server of the line above",
    "torchrun": "several processes; test_training_processes.py launches two",
    "accelerate launch": "the same",
    "PARALLELISM_CONFIG_TP_SIZE=2 torchrun": "the same, one model cut in two",
    "ACCELERATE_USE_FSDP=true": "64 GPUs",
    "python benchmarks/on_gpu.py": "half an hour of a GPU",
}
#: Pages of which no command is run: test_docs.py checks that commands and options are there.
ON_PAPER = {
    "recipes.md": "for GPUs and models that are not here; its figures are compared with the script that computes them"
}
#: Languages of blocks that hold no example to run.
SHOWN = {"text", "json"}


def examples(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page in order, each with its language."""
    return [(kind, body) for kind, body in BLOCK.findall(page.read_text(encoding="utf-8")) if kind not in SHOWN]


def shell_lines(body: str) -> list[str]:
    lines = [re.sub(r"\s+#\s.*$", "", line) for line in body.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines for part in re.split(r"\s(?:&&|\|)\s|;\s", line) if part.strip()]


def is_left_out(line: str) -> bool:
    return any(line.startswith(start) for start in NOT_RUN)


@pytest.fixture
def place(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Place(folder, tiny_llama)


def run_line(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "vocabtransfer", f"say in NOT_RUN why {line!r} is not run"
    if words[1] == "build" and not {"--output", "--into"} & set(words):
        words.append("--overwrite")  # pages show several ways to one place
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{line}: {result.exception!r}\n{result.output[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if examples(page) and page.parent.name != "extend" and page.name not in ON_PAPER],
    ids=lambda page: page.name,
)
def test_every_example_of_a_page_runs(
    page: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    names: dict[str, Any] = {}
    with services_here(monkeypatch, tmp_path / "cache"):
        text = page.read_text(encoding="utf-8")
        for written, here in EXCHANGED.get(page.name, {}).items():
            assert written in text, f"{page.name} no longer says {written!r}"
            text = text.replace(written, here)
        place.prepare("\n".join(body for kind, body in BLOCK.findall(text) if kind not in SHOWN))
        for kind, body in BLOCK.findall(text):
            if kind == "python":
                exec(compile(body, page.name, "exec"), names)
            elif kind == "sh":
                for line in shell_lines(body):
                    if not is_left_out(line):
                        run_line(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_said_to_be_shown_only(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {kind for kind, _ in BLOCK.findall(text)} <= {"python", "sh", *SHOWN}
    assert not re.search(r"^    \w*vocabtransfer ", text, re.MULTILINE), "put commands between ```sh and ```"
    for kind, body in examples(page):
        if kind == "sh":
            for line in shell_lines(body):
                assert line.startswith("vocabtransfer ") or is_left_out(line), f"{page.name}: {line}"


def test_what_is_not_run_is_still_there() -> None:
    lines = [line for page in PAGES for kind, body in examples(page) if kind == "sh" for line in shell_lines(body)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), f"no page says {start!r} any more"
