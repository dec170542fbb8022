"""`vocabtransfer tokenizer` as a user runs it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizer_samples import django_lines, ids_of
from transformers import AutoTokenizer

import vocabtransfer as vt
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.tokenization.write import read_kept


@pytest.fixture(scope="module")
def tatar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "tatar.txt"
    path.write_text("\n".join(line.replace("\n", " ") for line in django_lines("tt")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, real_tokenizer: Any) -> Path:
    """The folder of a Dutch tokenizer of 1,500 tokens after SmolLM2's."""
    folder = tmp_path_factory.mktemp("small") / "small"
    save_tokenizer(train_tokenizer(django_lines("nl"), like=real_tokenizer("smollm2"), vocab_size=1_500), folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from vocabtransfer_cli.main import run as run_command

    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(["tokenizer", *(str(argument) for argument in arguments)])
        sys.exit(0)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def facts(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, _ = run(capsys, *arguments, "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == 0, found
    return found


def test_extend(small: Path, tatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = facts(capsys, "extend", small, "--text", tatar, "--new-tokens", 300, "--output", out)
    assert (found["tokens_before"], found["tokens"], found["new"], found["kept"]) == (1_500, 1_800, 300, 1_500)
    assert found["output"] == str(out) and found["tokens_per_word"] < 0.6 * found["tokens_per_word_before"]
    kept = read_kept(out)
    assert kept is not None and kept[:3].tolist() == [0, 1, 2] and (kept < 0).sum() == 300
    ours, theirs = load_tokenizer(out), AutoTokenizer.from_pretrained(out)
    assert [theirs(line).input_ids for line in django_lines("tt")[:20]] == ids_of(ours, django_lines("tt")[:20])
    code, _, error = run(capsys, "extend", small, "--text", tatar, "--new-tokens", 300, "--output", out)
    assert code == 1 and "exists already" in error
    again = facts(capsys, "extend", small, "--text", tatar, "--new-tokens", 9, "--output", out, "--overwrite")
    assert again["tokens"] == 1_509 and len(load_tokenizer(out)) == 1_509


@pytest.mark.parametrize("verb", ["extend", pytest.param("swap", marks=pytest.mark.slow)])
def test_a_share_of_the_tokens_to_save(
    verb: str, tatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = django_lines("tt")
    learnt, apart = tmp_path / "learnt.txt", tmp_path / "apart.txt"
    learnt.write_text("\n".join(lines[:-200]), encoding="utf-8")
    apart.write_text("\n".join(lines[-200:]), encoding="utf-8")
    usual = (verb, "smollm2", "--text", learnt, "--held-out", apart, "--output", tmp_path / "out")
    found = facts(capsys, *usual, "--new-tokens", "30%")
    old, new = vt.open_checkpoint("smollm2").tokenizer, load_tokenizer(tmp_path / "out")
    before, after = (sum(map(len, ids_of(each, lines[-200:]))) for each in (old, new))
    assert 0.65 * before < after <= 0.7 * before and 0 < found["new"] < 1_000
    code, _, error = run(capsys, *usual, "--new-tokens", "90%", "--overwrite")
    assert code == 1 and "ask for less than 90%" in " ".join(error.split())
    assert len(load_tokenizer(tmp_path / "out")) == found["tokens"]


def test_swap_keeps_the_size(small: Path, tatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, "swap", "smollm2", "--text", tatar, "--new-tokens", 60, "--output", tmp_path / "out")
    assert found["tokens"] == found["tokens_before"] and found["new"] == 60
    assert found["tokens_per_word"] < found["tokens_per_word_before"]
    assert len(load_tokenizer(tmp_path / "out")) == found["tokens"]


def test_trim_and_optimise(small: Path, tatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [small, "--text", tatar]
    unused = facts(capsys, "trim", *common, "--drop-unused", "--output", tmp_path / "unused")
    assert unused["tokens_per_word"] == unused["tokens_per_word_before"] and unused["new"] == 0
    half = facts(capsys, "trim", *common, "--keep", 700, "--output", tmp_path / "half")
    assert half["tokens"] == 700 and len(load_tokenizer(tmp_path / "half")) == 700
    best = facts(capsys, "optimise", *common, "--vocab-size", 1_500, "--output", tmp_path / "best")
    assert best["tokens"] == best["kept"] + best["new"] == 1_500
    code, _, error = run(capsys, "trim", *common, "--keep", 5, "--drop-unused", "--output", tmp_path / "x")
    assert code == 2 and "--drop-unused" in error
    code, _, error = run(capsys, "trim", *common, "--keep", 5, "--output", tmp_path / "x")
    assert code == 2 and "at least" in error and not (tmp_path / "x").exists()


def test_train_a_size_and_automatically(tatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["train", "--text", tatar]
    plain = facts(capsys, *common, "--like", "smollm2", "--vocab-size", 900, "--output", tmp_path / "plain")
    assert plain["tokens"] == 900 and plain["curve"] is None
    picture = tmp_path / "curve.svg"
    found = facts(
        capsys, *common, "--like", "smollm2", "--vocab-size", "auto", "--plot", picture, "--output", tmp_path / "a"
    )
    assert found["tokens"] in [point["size"] for point in found["curve"]] and picture.stat().st_size > 5_000
    # Without a model there is nothing to weigh tokens against, unless it is told.
    code, _, error = run(
        capsys, *common, "--like", tmp_path / "plain", "--vocab-size", "auto", "--output", tmp_path / "b"
    )
    assert code == 2 and "--body-parameters" in error
    cost = ["--body-parameters", "1e5", "--token-parameters", 64, "--sizes", "500,700,900"]
    code, out, _ = run(
        capsys, *common, "--like", tmp_path / "plain", "--vocab-size", "auto", *cost, "--output", tmp_path / "b"
    )
    assert code == 0 and "700" in out and "Vocabulary sizes" in out
    assert len(load_tokenizer(tmp_path / "b")) in (500, 700, 900)


def test_compare(small: Path, minilm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "en-tt.tsv"
    table.write_text("ui\tOpen\tАчарга\nui\tClose\tЯбарга\ndocs\tRead this\tМоны укы\n", encoding="utf-8")
    picture = tmp_path / "figures.png"
    both = [small, f"bert={minilm_folder}"]
    options = ["--parallel", table, "--columns", "1,2", "--domain-column", 0, "--plot", picture]
    found = facts(capsys, "compare", *both, *options)
    assert [each["tokenizer"] for each in found["vocabularies"]] == [small.name, "bert"]
    assert {each["domain"] for each in found["texts"]} == {"ui", "docs", "all"}
    assert all(each["parity"] > 1 for each in found["texts"] if each["tokenizer"] == small.name)
    assert picture.stat().st_size > 5_000
    text, english = tmp_path / "text.txt", tmp_path / "english.txt"
    text.write_text("Ачарга\nЯбарга\n", encoding="utf-8")
    english.write_text("Open\nClose\n", encoding="utf-8")
    code, out, _ = run(capsys, "compare", small, "--text", text, "--english", english)
    assert code == 0 and "parity" in out and "unreachable" in out
    named = facts(capsys, "compare", small, "--text", f"ui={text}", "--english", f"ui={english}")
    assert [each["domain"] for each in named["texts"]] == ["ui"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "smollm2"], "Give either --text"),
        (["compare", "smollm2", "smollm2", "--text", "TEXT"], "same name"),
        (["compare", "smollm2", "--text", "nowhere.txt"], "no such file"),
        (["compare", "smollm2", "--text", "a=TEXT", "--english", "TEXT", "--english", "TEXT"], "for every --text"),
        (["train", "--like", "smollm2", "--text", "TEXT", "--vocab-size", "many", "--output", "o"], "number or auto"),
        (
            ["train", "--like", "smollm2", "--text", "TEXT", "--vocab-size", "auto", "--sizes", "1,x", "--output", "o"],
            "1,x",
        ),
        (
            ["train", "--like", "smollm2", "--text", "TEXT", "--vocab-size", "9", "--sizes", "9", "--output", "o"],
            "auto",
        ),
        (
            ["train", "--like", "x", "--text", "TEXT", "--vocab-size", "9", "--algorithm", "b", "--output", "o"],
            "algorithm",
        ),
        (["extend", "smollm2", "--text", "TEXT", "--new-tokens", "0", "--output", "o"], "new-tokens"),
        (["swap", "smollm2", "--text", "TEXT", "--new-tokens", "20%", "--output", "o"], "give --held-out"),
        (["extend", "smollm2", "--text", "TEXT", "--new-tokens", "a few", "--output", "o"], "such as 20%"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    tatar: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *(each.replace("TEXT", str(tatar)) for each in arguments))
    assert code == 2 and message in " ".join(error.split()) and "Traceback" not in error
    assert not (tmp_path / "o").exists()


def test_audit(small: Path, minilm_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, "audit", minilm_folder, "--examples", 2)
    assert found["unreachable"] == len(found["ids"]) == sum(found["reasons"].values()) > 300
    assert all(len(shown) <= 2 for shown in found["examples"].values())
    code, out, _ = run(capsys, "audit", small)
    assert code == 0 and " of 1,4" in out


def test_a_damaged_list_of_ids_is_refused(tmp_path: Path) -> None:
    assert read_kept(tmp_path) is None
    for damaged in ("{", '["a"]', "[[1]]", "[-2]"):
        (tmp_path / "kept_ids.json").write_text(damaged)
        with pytest.raises(VocabTransferError, match=r"kept_ids\.json"):
            read_kept(tmp_path)
