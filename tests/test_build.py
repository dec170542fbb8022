"""The main job as a user runs it: through the command line, on a tiny model, and once on the real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_samples import command
from transformers import AutoModelForCausalLM, AutoTokenizer

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vocabtransfer_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)


@pytest.fixture(scope="module")
def built(tiny_llama: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    output = tmp_path_factory.mktemp("built") / "out"
    done = run(
        *("build", "--source", tiny_llama, "--target", "tatar", "--parallel", corpus),
        *("--vocab-size", 600, "--output", output, "--json"),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return output, json.loads(done.stdout)


def test_the_build_says_what_it_did(built: tuple[Path, dict[str, object]]) -> None:
    output, facts = built
    assert facts["output"] == str(output)
    assert facts["language"]["code"] == "tt"  # type: ignore[index]
    rows = facts["rows_by_rule"]
    assert isinstance(rows, dict) and sum(rows.values()) == facts["tokenizer"]["vocabulary"]  # type: ignore[index]
    assert "none" not in rows and rows["special"] == 17
    tokenizer = facts["tokenizer"]
    assert isinstance(tokenizer, dict)
    assert tokenizer["tokens_per_word_after"] < tokenizer["tokens_per_word_before"] / 2
    assert facts["proof"]["loaded"] == "LlamaForCausalLM"  # type: ignore[index]


def test_python_writes_what_the_command_writes(
    built: tuple[Path, dict[str, object]], tiny_llama: Path, corpus: Path, tmp_path: Path
) -> None:
    output, _ = built
    request = vt.BuildRequest(str(tiny_llama), "tatar", tmp_path / "planned", parallel=(corpus,), vocab_size=600)
    planned = vt.build(request, dry_run=True)
    assert planned.written is None and list(tmp_path.iterdir()) == []
    saved = planned.save(tmp_path / "mine")
    assert saved.written is not None and saved.proof is not None
    listed = [
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (output, tmp_path / "mine")
    ]
    assert {"report.html", "README.md", "vocabtransfer.json"} <= {str(name) for name in listed[0]}
    assert listed[0] == listed[1]
    with pytest.raises(UsageError, match="written already"):
        saved.save(tmp_path / "again")
    with pytest.raises(VocabTransferError, match="exists already"):
        planned.save(tmp_path / "mine")


def test_the_result_is_a_plain_transformers_folder(built: tuple[Path, dict[str, object]], tiny_llama: Path) -> None:
    output, _ = built
    model = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    for text in ("китап өстәл өстендә", "In 2024: 3.14", "👩‍💻 ok", "def f(x):\n    return x"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == model.config.vocab_size
    assert model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    source = AutoModelForCausalLM.from_pretrained(tiny_llama)
    before, after = source.state_dict(), model.state_dict()
    kept = [name for name in before if "embed_tokens" not in name and "lm_head" not in name]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    old = AutoTokenizer.from_pretrained(tiny_llama)
    for token in ("<|im_start|>", "<|im_end|>"):
        rows = before["model.embed_tokens.weight"], after["model.embed_tokens.weight"]
        assert torch.equal(rows[0][old.convert_tokens_to_ids(token)], rows[1][tokenizer.convert_tokens_to_ids(token)])
    assert tokenizer.chat_template == old.chat_template


def test_inspect_explains_a_word(built: tuple[Path, dict[str, object]], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "inspect", built[0], "китап", "<|im_end|>", "--json")
    assert code == 0
    words = json.loads(out)["words"]
    assert words["<|im_end|>"][0]["rule"] == "special"
    (piece,) = words["китап"]
    assert piece["text"] == " китап" and piece["evidence"] > 10
    assert piece["sources"][0][0] == " book"
    code, out, _ = command(capsys, "inspect", built[0])
    assert code == 0 and "special" in out


def test_the_report_stands_alone_and_agrees_with_the_json(built: tuple[Path, dict[str, object]]) -> None:
    output, facts = built
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page and "https://" not in page and "src=" not in page
    assert "китап" in page and "Tatar" in page
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["rows_by_rule"] == facts["rows_by_rule"]
    assert any(row["text"] == " китап" for row in report["examples"])
    embedded = page.split("const map = ", 1)[1].split(";\n", 1)[0]
    table = json.loads(embedded)
    assert len(table["tokens"]) == len(table["rule"]) == len(table["sources"]) == report["tokenizer"]["vocabulary"]
    assert "Tatar" in (output / "README.md").read_text(encoding="utf-8")


def test_the_same_build_gives_the_same_bytes(
    tiny_llama: Path,
    corpus: Path,
    tmp_path: Path,
    built: tuple[Path, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = command(  # what it is compared with came from another process
        capsys,
        *("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus),
        *("--vocab-size", 600, "--output", tmp_path / "out", "--link", "copy"),
    )
    assert code == 0, err
    assert "tokens per word" in out
    # "tt" and "tatar" are one language; only what the request was called may differ.
    different = {"report.json", "report.html", "vocabtransfer.json"}  # the last lists the others
    names = {path.name for path in built[0].iterdir()}
    assert names == {path.name for path in (tmp_path / "out").iterdir()}
    for name in names - different:
        assert (built[0] / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


@pytest.mark.slow
def test_a_size_that_was_chosen_is_shown_with_what_it_was_chosen_from(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(
        capsys,
        *("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus),
        *("--vocab-size", "auto", "--output", tmp_path / "out"),
    )
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    points = report["tokenizer"]["sizes"]["points"]
    best = min(points, key=lambda point: point["work"])["size"]
    assert f"{best:,} ←" in out and abs(report["tokenizer"]["vocabulary"] - best) <= best // 10
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "How large the vocabulary should be" in page and f"<b>{best:,}</b>" in page
    if best == points[-1]["size"]:
        assert any("largest vocabulary" in note for note in report["notes"])


def test_a_dry_run_writes_nothing(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.tsv.gz"
    code, out, _ = command(capsys, "align", corpus, "--target", "tt", "--output", table, "--json")
    assert code == 0 and json.loads(out)["pairs"] == 48
    before = sorted(tmp_path.iterdir())
    code, out, _ = command(
        capsys,
        *("build", "--source", tiny_llama, "--target", "tt", "--alignment", table),
        *("--tokenizer", tiny_llama, "--output", tmp_path / "out", "--dry-run", "--json"),
    )
    assert code == 0, out
    facts = json.loads(out)
    assert "output" not in facts and facts["plan"]["bytes_written"] > 0
    assert set(facts["rows_by_rule"]) <= {"special", "copied", "aligned", "mean"}
    assert sorted(tmp_path.iterdir()) == before


def test_a_romanized_build_keeps_its_romanizer_in_the_tokenizer(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = (
        "build",
        "--source",
        tiny_llama,
        "--target",
        "tatar",
        "--parallel",
        corpus,
        "--vocab-size",
        "400",
        "--json",
    )
    code, out, err = command(capsys, *usual, "--romanize", "--output", tmp_path / "out")
    assert code == 0, out + err
    facts = json.loads(out)
    assert facts["notes"], "that it cannot be undone is said"
    assert json.loads((tmp_path / "out" / "romanization.json").read_text())["transliterator"] == "table"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer("китап", add_special_tokens=False)["input_ids"]).strip() == "kitap"
    assert facts["rows_by_rule"].get("aligned", 0) + facts["rows_by_rule"].get("aligned and pieces", 0) > 0


def test_a_build_can_go_into_a_hydra_as_a_head(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = (
        "build",
        "--source",
        tiny_llama,
        "--target",
        "tatar",
        "--parallel",
        corpus,
        "--vocab-size",
        "400",
        "--json",
    )
    hydra = tmp_path / "hydra"
    code, out, err = command(capsys, *usual, "--as-head", "tatar", "--into", hydra)
    assert code == 0, out + err
    assert json.loads(out)["head"] == "tatar" and (hydra / "heads" / "tatar" / "report.html").is_file()
    code, out, _ = command(capsys, "head", "list", hydra, "--json")
    assert code == 0 and "tatar" in out
    model = vt.HydraForCausalLM.from_pretrained(hydra)
    with model.use_head("tatar"):
        assert model.active_head == "tatar"
    code, out, _ = command(capsys, *usual, "--as-head", "tatar", "--into", hydra)
    assert code == 2 and "already has a head" in json.loads(out)["error"]
    code, out, _ = command(capsys, *usual, "--as-head", "tatar")
    assert code == 2 and "--into" in json.loads(out)["error"]


def test_evaluate_measures_raw_bytes(
    built: tuple[Path, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("китап өстәл өстендә\n" * 5, encoding="utf-8")
    code, out, err = command(capsys, "evaluate", built[0], "--text", text, "--json")
    assert code == 0, err + out
    facts = json.loads(out)
    assert facts["bytes"] == pytest.approx(len(text.read_bytes()), abs=5)
    assert 0 < facts["bits_per_byte"] < 20 and facts["tokens_per_word"] > 0


def test_evaluate_shows_the_untouched_model_beside_it(
    built: tuple[Path, object], tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("китап өстәл өстендә\n" * 5, encoding="utf-8")
    usual = ("evaluate", built[0], "--text", text, "--baseline", tiny_llama)
    code, out, err = command(capsys, *usual, "--json")
    assert code == 0, err + out
    facts = json.loads(out)
    assert facts["baseline"]["bytes"] == facts["bytes"]
    assert facts["gain"] == pytest.approx(facts["baseline"]["bits_per_byte"] - facts["bits_per_byte"])
    code, out, _ = command(capsys, *usual)
    assert code == 0 and "; the baseline " in out


def test_the_python_interface_reads_like_the_documentation(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    source = vt.open_checkpoint(str(tiny_llama))
    pairs = vt.read_parallel([corpus])
    table = vt.align_corpus(pairs)
    tokenizer = vt.train_tokenizer((target for _, target in pairs), like=source.tokenizer, vocab_size=500)
    # Without reading pieces with the model, so that the map alone makes the rows.
    result = vt.transfer(source, tokenizer, vt.Evidence(alignment=table), calibrate=False, measure=False)
    explanation = result.explain("китап")
    assert explanation.sources[0][0] == " book"
    result.save(tmp_path / "out")
    reread = vt.TokenMap.load(tmp_path / "out" / "token_map.safetensors")
    assert reread.to_bytes() == result.token_map.to_bytes()
    rows = reread.apply(_Rows(source.input_table()))
    written = vt.open_checkpoint(str(tmp_path / "out")).input_table().float().numpy()
    np.testing.assert_allclose(rows, written, atol=2e-3)
    assert all(hasattr(vt, name) for name in vt.__all__)


class _Rows:
    def __init__(self, table: torch.Tensor) -> None:
        self._table = table.float().numpy()

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        return self._table[ids]


# The first notebook does the same by default, and `make demo` on every submission.
@pytest.mark.slow
def test_the_embedded_default_builds_and_speaks(tmp_path: Path, smollm2_folder: Path) -> None:
    """`make demo`, without the set-up: the real model, the shipped table, no hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "vocabtransfer_cli.main", "build", "--source", "smollm2", "--target", "tatar"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["proof"]["generated"].strip()
    assert facts["tokenizer"]["tokens_per_word_after"] < 2.5 < 5 < facts["tokenizer"]["tokens_per_word_before"]
    assert facts["method"]["calibrated"] and facts["rows_by_rule"]["aligned"] > 50
