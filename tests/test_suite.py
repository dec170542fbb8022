"""lm-eval on what we write: tasks whose data the test makes, the same bits per byte as ours, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_samples import command
from family_samples import larger_llama

import vocabtransfer as vt

lm_eval = pytest.importorskip("lm_eval")

DOCUMENTS = (
    "The committee met on Tuesday, and nobody was surprised.",
    "Китап өстәл өстендә ята; мин аны укыйм. 😀",
    "def f(x):\n    return x + 1  # done",
)
QUESTIONS = (
    {"question": "The opposite of hot is", "choices": ["cold", "sugar", "seven"], "label": 0},
    {"question": "Two and two make", "choices": ["a horse", "four"], "label": 1},
    {"question": "The sun rises in the", "choices": ["east", "kitchen"], "label": 0},
)


def write_tasks(folder: Path) -> Path:
    """Write a task of each kind with its data; no task asks for anything from outside."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {
        "made_choice": (
            QUESTIONS,
            {
                "output_type": "multiple_choice",
                "doc_to_text": "{{question}}",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{label}}",
                "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
            },
        ),
        "made_text": (
            [{"text": text} for text in DOCUMENTS],
            {
                "output_type": "loglikelihood_rolling",
                "doc_to_text": "",
                "doc_to_target": "{{text}}",
                "metric_list": [{"metric": "bits_per_byte"}],
            },
        ),
        "made_answer": (
            [{"text": text} for text in DOCUMENTS],
            {
                "output_type": "generate_until",
                "doc_to_text": "{{text}}",
                "doc_to_target": "x",
                "metric_list": [{"metric": "exact_match"}],
            },
        ),
    }
    for name, (rows, task) in kinds.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **source, **task}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def test_bits_per_byte_are_those_of_lm_eval(tiny_llama: Path, tasks: Path) -> None:
    found = vt.run_suite(tiny_llama, [str(tasks / "made_text.yaml")], device="cpu")
    text = tasks / "made_text.jsonl"
    ours = vt.evaluate(tiny_llama, vt.read_text(text, field="text"), device="cpu")
    assert ours.documents == len(DOCUMENTS)
    assert found.tasks["made_text"]["bits_per_byte"] == pytest.approx(ours.bits_per_byte, rel=1e-5)


@pytest.mark.slow
def test_the_command_shows_tasks_beside_the_baseline(
    tiny_llama: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = larger_llama(tmp_path / "other", tiny_llama)
    names = f"{tasks / 'made_choice.yaml'},{tasks / 'made_text.yaml'}"
    words = ("evaluate", other, "--baseline", tiny_llama, "--suite", names, "--device", "cpu")
    code, out, err = command(capsys, *words, "--json")
    assert code == 0, out + err
    suite = json.loads(out)["suite"]
    assert set(suite["tasks"]) == {"made_choice", "made_text"} == set(suite["baseline"]["tasks"])
    assert 0 <= suite["tasks"]["made_choice"]["acc"] <= 1 and "acc_norm" in suite["tasks"]["made_choice"]
    mine, theirs = (part["tasks"]["made_text"]["bits_per_byte"] for part in (suite, suite["baseline"]))
    assert mine != theirs
    code, out, err = command(capsys, *words, "--text", tasks / "made_text.jsonl")
    assert code == 0, out + err
    said = " ".join(out.split())
    assert f"made_text: bits_per_byte {mine:,.4g};" in said and f"; the baseline {theirs:,.4g}" in said
    assert "bits per byte" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        # lm-eval reads some ten thousand files to know what it has.
        pytest.param(["--suite", "no_such_task"], 2, "has no task 'no_such_task'", marks=pytest.mark.slow),
        (["--suite", "nowhere.yaml"], 2, "no task file nowhere.yaml"),
        (["--suite", "made_answer.yaml"], 2, "made_answer asks for 'generate_until'"),
        ([], 2, "--text to score, --suite"),
        (["--few-shot", "1", "--text", "made_text.jsonl"], 2, "give --suite"),
        (["--suite", "made_choice.yaml"], 1, "cannot be read"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_sentence(
    words: list[str],
    code: int,
    said: str,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tasks(tmp_path / "tasks")
    (tmp_path / "tasks" / "made_choice.jsonl").unlink()
    monkeypatch.chdir(tmp_path / "tasks")
    found, out, err = command(capsys, "evaluate", tiny_llama, *words, "--device", "cpu")
    assert found == code and said in err + out
    assert "Traceback" not in err


def test_without_lm_eval_the_extra_is_named(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lm_eval" else find(name, *a))
    code, _, err = command(capsys, "evaluate", tiny_llama, "--suite", "arc_easy")
    assert code == 2 and "vocabtransfer[suite]" in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "sentencepiece", "unigram"])
def test_lm_eval_itself_runs_on_what_we_write(tiny_llama: Path, tasks: Path, tmp_path: Path, kind: str) -> None:
    """Its own command, as people call it, on a folder with a new vocabulary of each kind that models write with."""
    source = vt.open_checkpoint(str(tiny_llama))
    lines = [*DOCUMENTS, "мин ике йорт һәм бер китап күрәм", "ачык тәрәзә янында утыра"] * 40
    tokenizer = vt.train_tokenizer(lines, vocab_size=500, like=source.tokenizer, algorithm=kind)
    vt.transfer(source, tokenizer, method="pieces", calibrate=False).save(tmp_path / "model")
    words = ("--model", "hf", "--model_args", f"pretrained={tmp_path / 'model'},dtype=float32", "--device", "cpu")
    more = ("--tasks", "made_text,made_choice", "--include_path", str(tasks), "--output_path", str(tmp_path / "out"))
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "data"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words, *more],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    ours = vt.evaluate(tmp_path / "model", vt.read_text(tasks / "made_text.jsonl", field="text"), device="cpu")
    assert results["made_text"]["bits_per_byte,none"] == pytest.approx(ours.bits_per_byte, rel=1e-5)
    assert 0 <= results["made_choice"]["acc,none"] <= 1
