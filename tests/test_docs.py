"""The README and the pages of docs/: their Python runs, their commands exist, their links lead somewhere."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from thinned import first_of
from vocabtransfer_cli.main import app

import vocabtransfer as vt
from vocabtransfer.alignment.registry import ALIGNERS, aligners
from vocabtransfer.corpora.offers import SOURCES
from vocabtransfer.initialization.registry import METHODS
from vocabtransfer.serving.endpoints import ENDPOINTS, endpoints
from vocabtransfer.training.objectives import OBJECTIVES, objectives
from vocabtransfer.transliteration import TRANSLITERATORS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXTENDING = sorted((ROOT / "docs/extend").glob("*.md"))
QUICK = [page for page in EXTENDING if page.stem != "objective"]  # it trains
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")


def blocks(page: Path, kind: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language == kind]


def commands(page: Path) -> list[list[str]]:
    """Every line of a page's shell blocks that calls vocabtransfer, in words, without what follows a pipe or ``;``."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in re.split(r"\s*(?:;|&&|\|)\s*", line.split(" #")[0])]
    parts = [re.sub(r"^.* vocabtransfer_cli\.main ", "vocabtransfer ", part) for part in parts]  # behind a launcher
    return [shlex.split(part)[1:] for part in parts if part.startswith("vocabtransfer ")]


@pytest.fixture
def registries_as_they_were() -> Iterator[None]:
    """What an example registers is gone again after it."""
    registries: list[dict[Any, Any]] = [ALIGNERS, ENDPOINTS, METHODS, OBJECTIVES, SOURCES, TRANSLITERATORS]
    aligners(), endpoints(), objectives()  # ours are there before anybody else's
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize("page", first_of(EXTENDING, *QUICK), ids=lambda page: page.stem)
def test_the_examples_of_how_to_extend_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries_as_they_were: None
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for body in blocks(page, "python"):
        exec(compile(body, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles_and_names_what_exists(page: Path) -> None:
    for body in blocks(page, "python"):
        compile(body, page.name, "exec")
        for name in re.findall(r"\bvt\.(\w+)", body):
            assert hasattr(vt, name), f"{page.name} uses vt.{name}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    top = typer.main.get_command(app)
    for words in commands(page):
        command: Any = top
        rest = list(words)
        while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
            found = command.commands.get(rest.pop(0))
            assert found is not None, f"{page.name}: there is no command in `vocabtransfer {shlex.join(words)}`"
            command = found
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - {"-h", "--help"}
        assert used <= options, f"{page.name}: `vocabtransfer {shlex.join(words)}` has {sorted(used - options)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_front_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_every_public_name_has_an_entry() -> None:
    entries = re.findall(r"^::: ([\w.]+)$", "\n".join(p.read_text("utf-8") for p in PAGES), re.MULTILINE)
    assert {entry.rpartition(".")[2] for entry in entries} == set(vt.__all__) - {"__version__"}


def test_every_command_has_a_name_in_python() -> None:
    page = (ROOT / "docs/api/verbs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z -]+)` \| (.*) \|$", page, re.MULTILINE))
    found: set[str] = set()
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {each}" for each in inner} if inner else {name}
    assert rows.keys() == found
    for command, text in rows.items():
        names = set(re.findall(r"(?<![.\w/])([A-Za-z_]+)(?=[(.])", " ".join(re.findall(r"`([^`]+)`", text))))
        assert names - {"vocabtransfer"} <= set(vt.__all__), f"{command}: {names - set(vt.__all__)}"
        noun, _, verb = command.partition(" ")
        if noun == "tokenizer":
            assert {f"{verb}_tokenizer", f"{verb}_tokenizers"} & names


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [
        p.name for p in PAGES if p.parent != ROOT and f" {p.relative_to(ROOT / 'docs').as_posix()}" not in contents
    ]
    assert not missing


def test_the_sentences_to_look_up_are_those_people_meet() -> None:
    code = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "vocabtransfer").rglob("*.py"))
    joined = re.sub(r'"\s*f?"', "", code)  # a sentence may go over several lines
    titles = re.findall(r'^## "(.*)"$', (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert len(titles) >= 8
    for title in titles:
        for part in title.split("..."):
            assert part.strip() in joined, f"no error says {part.strip()!r}"


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    commands = (tmp_path / "site/command-line.html").read_text(encoding="utf-8")
    assert "vocabtransfer build" in commands and "--vocabulary" in commands


def test_the_recipes_say_what_the_script_prints() -> None:
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "benchmarks/scale/recipes.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["recipes"] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    for recipe in made.RECIPES:
        assert "\n".join(made.table(recipe)) in page, recipe.title
