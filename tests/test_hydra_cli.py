"""The commands `head`, `generate` and `translate`: what they print, and one sentence and an exit code when they fail."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hydra_samples import TEXTS, Sample, make_sample, one_thread  # noqa: F401
from vocabtransfer_cli import main
from vocabtransfer_cli.generate import generate
from vocabtransfer_cli.head import head
from vocabtransfer_cli.translate import translate

from vocabtransfer.hydra import HydraForCausalLM, list_heads

GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line as the program does; returns the exit code and standard output."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.add_typer(head, name="head")
    app.command()(generate)
    app.command()(translate)
    monkeypatch.setattr(main, "app", app)

    def run_command(*words: Any) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main.run([str(word) for word in words])
            raise SystemExit(0)
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out

    return run_command


def test_the_life_of_a_head(sample: Sample, tmp_path: Path, run: Any) -> None:
    hydra = tmp_path / "hydra"
    code, said = run("head", "create", hydra, "--source", sample.standalone["english"], "--name", "english", "--json")
    assert code == 0 and json.loads(said)["heads"] == ["english"]
    code, said = run(
        "head", "add", hydra, "tatar", "--from", sample.standalone["tatar"], "--language", "tatar", "--json"
    )
    assert code == 0 and json.loads(said)["vocabulary"] == 288
    assert run("head", "rename", hydra, "tatar", "tt")[0] == 0
    code, said = run("head", "list", hydra, "--json")
    listed = json.loads(said)["heads"]
    assert [(entry["name"], entry["language"], entry["own"]) for entry in listed] == [
        ("english", None, True),
        ("tt", "tt", False),
    ]
    code, said = run("head", "show", hydra, "tt", "--json")
    assert json.loads(said)["tables"] == {"input": {"dtype": "F32", "shape": [288, 32]}}
    assert json.loads(run("head", "verify", hydra, "--json")[1])["heads"] == ["english", "tt"]
    assert run("head", "export", hydra, "tt", "--output", tmp_path / "one")[0] == 0
    assert (tmp_path / "one/config.json").is_file()
    code, said = run("head", "export", hydra, "--concatenate", "--output", tmp_path / "all", "--json")
    assert json.loads(said)["output"] == str(tmp_path / "all")
    assert run("head", "remove", hydra, "tt")[0] == 0
    assert [info.name for info in list_heads(hydra)] == ["english"]


def test_tables_for_people(hydra: Path, run: Any) -> None:
    (hydra / "heads/dutch/head_config.json").unlink()
    code, said = run("head", "list", hydra)
    assert code == 0 and "the backbone's own" in said and "cannot be read" in said
    code, said = run("head", "show", hydra, "tatar")
    assert code == 0 and "pieces" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["head", "list", "{hydra}/heads"], 1, "is not a Hydra"),
        (["head", "show", "{hydra}", "frisian"], 1, "no head named 'frisian'"),
        (["head", "remove", "{hydra}", "../hydra"], 2, "cannot be called"),
        (["head", "remove", "{hydra}", "english"], 2, "own head"),
        (["head", "rename", "{hydra}", "tatar", "dutch"], 2, "already has a head named dutch"),
        (["head", "add", "{hydra}", "x"], 2, "say what to add"),
        (["head", "add", "{hydra}", "x", "--from", "nothing"], 2, "neither a folder"),
        (["head", "export", "{hydra}", "--output", "{hydra}/../out"], 2, "name one head"),
        (["head", "export", "{hydra}", "tatar", "--output", "{hydra}/../out", "--link", "soft"], 2, "hard or copy"),
        (["generate", "{hydra}", "hello", "--head", "frisian"], 1, "no head named 'frisian'"),
        (["generate", "{hydra}", ""], 2, "prompt is empty"),
        (["generate", "{hydra}", "hello", "--chat"], 2, "no chat template"),
        (["generate", "{hydra}", "hello", "--dtype", "int3"], 2, "--dtype is one of"),
        (["translate", "{hydra}", "a", "--source", "english", "--target", "x"], 1, "no head named 'x'"),
        (["translate", "{hydra}", "a", "--source", "english", "--target", "tatar", "--file", "f"], 2, "not both"),
    ],
)
def test_failures_are_one_sentence(hydra: Path, run: Any, words: list[str], code: int, said: str) -> None:
    before = sorted(hydra.rglob("*"))
    got, printed = run(*(word.format(hydra=hydra) for word in words), "--json")
    assert got == code
    assert said in json.loads(printed)["error"] and json.loads(printed)["exit_code"] == code
    assert sorted(hydra.rglob("*")) == before and not (hydra.parent / "out").exists()


def test_generating(sample: Sample, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HydraForCausalLM.from_pretrained(sample.hydra)
    for reader, writer in (("tatar", "tatar"), ("english", "dutch")):
        wanted = model.decode(
            model.generate(**model.encode([(reader, TEXTS[reader])], output=writer), **GREEDY), writer
        )
        command = [
            "generate",
            sample.hydra,
            TEXTS[reader],
            "--head",
            reader,
            "--answer",
            writer,
            "--max-new-tokens",
            "5",
        ]
        code, said = run(*command, "--json")
        assert code == 0 and json.loads(said)["generated"] == wanted[0]
        assert run(*command)[1] == wanted[0] + "\n"
        monkeypatch.setattr("sys.stdin", io.StringIO(TEXTS[reader] + "\n"))
        assert run(*command[:2], *command[3:])[1] == wanted[0] + "\n"


def test_sampling_follows_the_seed(sample: Sample, run: Any) -> None:
    command = ["generate", sample.hydra, "hello", "--temperature", "3", "--max-new-tokens", "12", "--json", "--seed"]
    drawn = [run(*command, seed)[1] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_translating(sample: Sample, run: Any, tmp_path: Path) -> None:
    model = HydraForCausalLM.from_pretrained(sample.hydra)
    texts = ["hello world", "the fox", "hello"]
    wanted = model.translate(texts, source="english", target="tatar", max_new_tokens=5)
    options = ["--source", "english", "--target", "tatar", "--max-new-tokens", "5"]
    code, said = run("translate", sample.hydra, *texts, *options, "--json")
    assert code == 0 and [pair["translation"] for pair in json.loads(said)["translations"]] == wanted
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    assert run("translate", sample.hydra, *options, "--file", tmp_path / "lines.txt")[1] == "".join(
        line + "\n" for line in wanted
    )
    assert run("translate", sample.hydra, texts[0], *options)[1].strip() == wanted[0]


def test_chat(sample: Sample, hydra: Path, run: Any) -> None:
    template = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}</s>{% endif %}"
    (hydra / "chat_template.jinja").write_text(template)
    model = HydraForCausalLM.from_pretrained(hydra)
    ids = torch.tensor([model.tokenizer("english").encode("<s>hello</s>", add_special_tokens=False)])
    wanted = model.decode(model.generate(ids, **GREEDY)[0, ids.shape[1] :])
    code, said = run("generate", hydra, "hello", "--chat", "--max-new-tokens", "5", "--json")
    assert code == 0 and json.loads(said)["generated"] == wanted
    prompt = "<s>Translate the following text from English into Tatar.\n\nhello</s>"
    ids = model.tokenizer("english").encode(prompt, add_special_tokens=False)
    answer = model.generate(**model.encode([("english", ids)], output="tatar"), **GREEDY)[0]
    text = model.decode(answer, "tatar")
    translated = model.translate("hello", source="english", target="tatar", begin_suppress_tokens=None, **GREEDY)
    assert translated == text.split("\n")[0].strip()
