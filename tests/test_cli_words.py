"""What the words of a command alone tell: choices in help and completion, and things not there, before heavy imports."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from vocabtransfer_cli.choices import CHOICES, choices_of
from vocabtransfer_cli.early import FILES, LABELS, MODELS
from vocabtransfer_cli.main import app

import vocabtransfer as vt
from vocabtransfer.alignment.registry import OWN, aligners
from vocabtransfer.initialization.norms import NORMS
from vocabtransfer.pipeline.shapes import SHAPES
from vocabtransfer.running.settings import DTYPES
from vocabtransfer.tokenization.train import ALGORITHMS
from vocabtransfer.training.objectives import objectives
from vocabtransfer.transliteration import TRANSLITERATORS

WRONG = [
    (["inspect", "nowhere/at-all", "word"], "is not a folder"),
    (["evaluate", "/nowhere/at/all", "--text", "README.md"], "'/nowhere/at/all' is neither a folder"),
    (["build", "--source", "./nowhere", "--target", "tatar"], "'./nowhere' is neither a folder"),
    (["adapt", "smollm2", "--text", "nowhere.txt", "--output", "out"], "--text nowhere.txt: there is no such file"),
    (["evaluate", "smollm2", "--text", "nowhere.txt"], "--text nowhere.txt: there is no such file"),
    (
        ["align", "nowhere.tsv", "--target", "tatar", "--output", "t.tsv.xz"],
        "corpus nowhere.tsv: there is no such file",
    ),
    (["inspect", "docs", "word"], "There is no token map at docs"),
    (["build", "--source", "smollm2", "--target", "dutchh"], "no language is known as 'dutchh'"),
    (["build", "--source", "smollm2", "--target", "dutch", "--vocabulary", "all"], "--vocabulary is one of auto, "),
    (["evaluate", "smollm2", "--text", "README.md", "--dtype", "int3"], "--dtype is one of float32, "),
    (["adapt", "smollm2", "--text", "README.md", "--output", "out", "--stage", "new:1"], "--stage new:1: write NAME:"),
    (["adapt", "smollm2", "--text", "README.md", "--output", "out", "--objective", "x"], "--objective is one of clm, "),
]


def commands(group: Any, path: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, command in group.commands.items():
        here = f"{path} {name}".strip()
        found += commands(command, here) if getattr(command, "commands", None) else [(here, command)]
    return found


ALL = commands(typer.main.get_command(app))


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_what_is_not_there_is_told_in_one_sentence(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, vt.VocabTransferError) and said in str(result.exception)


@pytest.mark.parametrize("words", [words for words, _ in WRONG], ids=lambda words: words[0])
def test_nothing_heavy_is_imported_for_it(words: list[str]) -> None:
    code = (
        "import sys; from vocabtransfer_cli.main import app\n"
        f"try: app(args={words!r}, standalone_mode=False)\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False" and "Error" in done.stdout


def test_the_tables_name_what_exists() -> None:
    names = {parameter.name for _, command in ALL for parameter in command.params}
    assert {name.rpartition(":")[2] for name in (*FILES, *LABELS, *CHOICES)} <= names
    known = dict(ALL)
    for command, parameters in MODELS.items():
        assert set(parameters) <= {parameter.name for parameter in known[command].params}


def test_choices_are_those_the_library_knows() -> None:
    assert set(choices_of("build", "vocabulary")) == {*SHAPES, "auto"}
    assert set(choices_of("tokenizer train", "algorithm")) == set(ALGORITHMS)
    assert set(choices_of("align corpus", "aligner")) == {OWN, *aligners()}
    assert set(choices_of("adapt", "objective")) == set(objectives())
    assert set(choices_of("build", "norm")) == set(NORMS)
    assert set(choices_of("evaluate", "dtype")) == {*DTYPES, "auto"}
    assert set(choices_of("romanize", "transliterator")) == set(TRANSLITERATORS)


def test_help_shows_choices_and_never_cuts_a_name_at_80_columns() -> None:
    for path, command in ALL:
        shown = CliRunner().invoke(app, [*path.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
        assert "…" not in shown
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" else ():
                assert name in shown, f"{path} --help at 80 columns lacks {name}"
    assert "hard | copy" in " ".join(CliRunner().invoke(app, ["adapt", "--help"]).output.split())


def test_the_shell_completes_choices(tmp_path: Path) -> None:
    words = "vocabtransfer build --vocabulary re"
    environment = {**os.environ, "_VOCABTRANSFER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    code = "from vocabtransfer_cli.main import app; app(prog_name='vocabtransfer')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["replace"]
