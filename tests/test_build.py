"""The main job as a user runs it: through the command line, on a tiny model, and once on the real one."""

import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from build_samples import write_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.against_source import AgainstSource, HeldOutScore
from vocabtransfer.pipeline.samples import sample_lines


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vocabtransfer_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)


def run_inside(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: quicker where only its answer counts."""
    from vocabtransfer_cli.main import run as run_command

    with pytest.raises(SystemExit) as stop:
        run_command([str(argument) for argument in arguments])
        sys.exit(0)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("corpus") / "en-tt.tsv")


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
    code, out, _ = run_inside(capsys, "inspect", built[0], "китап", "<|im_end|>", "--json")
    assert code == 0
    words = json.loads(out)["words"]
    assert words["<|im_end|>"][0]["rule"] == "special"
    (piece,) = words["китап"]
    assert piece["text"] == " китап" and piece["evidence"] > 10
    assert piece["sources"][0][0] == " book"
    code, out, _ = run_inside(capsys, "inspect", built[0])
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
    code, out, err = run_inside(  # what it is compared with came from another process
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


def test_a_size_that_was_chosen_is_shown_with_what_it_was_chosen_from(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_inside(
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
    code, out, _ = run_inside(capsys, "align", corpus, "--target", "tt", "--output", table, "--json")
    assert code == 0 and json.loads(out)["pairs"] == 48
    before = sorted(tmp_path.iterdir())
    code, out, _ = run_inside(
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
    code, out, err = run_inside(capsys, *usual, "--romanize", "--output", tmp_path / "out")
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
    code, out, err = run_inside(capsys, *usual, "--as-head", "tatar", "--into", hydra)
    assert code == 0, out + err
    assert json.loads(out)["head"] == "tatar" and (hydra / "heads" / "tatar" / "report.html").is_file()
    code, out, _ = run_inside(capsys, "head", "list", hydra, "--json")
    assert code == 0 and "tatar" in out
    model = vt.HydraForCausalLM.from_pretrained(hydra)
    with model.use_head("tatar"):
        assert model.active_head == "tatar"
    code, out, _ = run_inside(capsys, *usual, "--as-head", "tatar", "--into", hydra)
    assert code == 2 and "already has a head" in json.loads(out)["error"]
    code, out, _ = run_inside(capsys, *usual, "--as-head", "tatar")
    assert code == 2 and "--into" in json.loads(out)["error"]


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
    code, out, err = run_inside(capsys, *arguments, "--json")
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
    assert process.returncode == 1 and "Interrupted" in err and "Traceback" not in err, err
    left = [path.name for path in tmp_path.iterdir()]
    assert left in ([], ["out"])
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
    code, out, err = run_inside(
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
            code, _, err = run_inside(capsys, "build", "--source", tiny_llama, *arguments)
            assert code == 0, err
        files = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        code, _, err = run_inside(capsys, "build", "--source", broken, *arguments, "--overwrite")
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
    command = ("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus)
    code, out, err = run_inside(capsys, *command, "--output", small_disk / "out", "--json")
    assert code == 1, err
    assert re.search(r"needs .*(free|room|space)", json.loads(out)["error"])
    assert list(small_disk.iterdir()) == []


def test_evaluate_measures_raw_bytes(
    built: tuple[Path, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("китап өстәл өстендә\n" * 5, encoding="utf-8")
    code, out, err = run_inside(capsys, "evaluate", built[0], "--text", text, "--json")
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
    code, out, err = run_inside(capsys, *usual, "--json")
    assert code == 0, err + out
    facts = json.loads(out)
    assert facts["baseline"]["bytes"] == facts["bytes"]
    assert facts["gain"] == pytest.approx(facts["baseline"]["bits_per_byte"] - facts["bits_per_byte"])
    code, out, _ = run_inside(capsys, *usual)
    assert code == 0 and "; the baseline " in out


def test_the_python_interface_reads_like_the_documentation(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    source = vt.open_checkpoint(str(tiny_llama))
    pairs = vt.read_parallel([corpus])
    table = vt.align_corpus(pairs)
    tokenizer = vt.train_tokenizer((target for _, target in pairs), like=source.tokenizer, vocab_size=500)
    result = vt.transfer(source, tokenizer, vt.Evidence(alignment=table), calibrate=False)
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


def test_every_shipped_table_can_be_read() -> None:
    for code in ("tt", "nl", "ru", "tr", "kk", "sw", "hi", "de"):
        table = vt.shipped_table(vt.find_language(code))
        assert table is not None, code
        assert table.counts.nnz > 3_000 and table.metadata["licence"]


def test_tables_stand_beside_what_the_sentences_say(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    from vocabtransfer.alignment.dictionary import dictionary_table
    from vocabtransfer.pipeline.build import BuildRequest, build

    extra = tmp_path / "extra.tsv.xz"
    dictionary_table([("window", "пәнҗәрә"), ("book", "китап")], weight=5).save(extra)
    usual = {"parallel": (corpus,), "held_out_bytes": 0}
    plain = build(BuildRequest(str(tiny_llama), "tatar", tmp_path / "out", **usual), dry_run=True)  # type: ignore[arg-type]
    both = build(
        BuildRequest(
            str(tiny_llama),
            "tatar",
            tmp_path / "out",
            alignment=(extra,),
            alignment_weights=(2.0,),
            **usual,  # type: ignore[arg-type]
        ),
        dry_run=True,
    )
    tables = [found.transfer.inputs.table for found in (plain, both)]
    assert tables[0] is not None and tables[1] is not None
    assert dict(tables[1].lookup("пәнҗәрә")) == {"window": 10.0} and not tables[0].lookup("пәнҗәрә")
    added = dict(tables[1].lookup("китап"))["book"] - dict(tables[0].lookup("китап"))["book"]
    assert added == pytest.approx(10, abs=1e-3)


def test_lzma_corpora_with_a_label_column_work(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "en-tt.tsv.xz"
    with lzma.open(packed, "wt", encoding="utf-8") as file:
        file.writelines(f"part\t{line}\n" for line in corpus.read_text(encoding="utf-8").splitlines())
    code, out, _ = run_inside(
        capsys, "align", packed, "--columns", "1,2", "--target", "tatar", "--output", tmp_path / "t.tsv.xz", "--json"
    )
    assert code == 0 and json.loads(out)["pairs"] == 48


def test_a_tmx_file_with_a_third_language_serves_alignment_and_tokenizer(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = (
        "<tu><tuv xml:lang='ru'><seg>книга лежит</seg></tuv><tuv xml:lang='en'><seg>the book lies</seg></tuv>"
        "<tuv xml:lang='tt'><seg>китап ята</seg></tuv></tu>"
    )
    corpus = tmp_path / "pairs.tmx"
    corpus.write_text(f"<tmx version='1.4'><header srclang='ru'/><body>{unit * 30}</body></tmx>", encoding="utf-8")
    code, out, err = run_inside(
        capsys,
        *("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus),
        *("--vocab-size", 500, "--output", tmp_path / "out", "--dry-run", "--json"),
    )
    assert code == 0, out + err
    assert json.loads(out)["tokenizer"]["tokens_per_word_after"] < 2


def test_the_page_shows_how_text_is_cut() -> None:
    lines = [
        "Соңгы берничә елда татар теле белән кызыксыну артты.",
        "кыска",
        "Бу икенче шактый озын татарча җөмлә, карап чыгыгыз.",
    ]
    assert sample_lines(lines, {}) == [lines[0], lines[2]]
    assert sample_lines(None, {"китаплар": 3.0, "су": 9.0, "мәктәп": 5.0}) == ["мәктәп китаплар"]
    assert sample_lines(["x" * 500], {}) == ["x" * 140]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_where_the_source_and_the_text_lie_changes_no_byte(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = tmp_path / "here", tmp_path / "elsewhere" / "deep"
    for place in (near, far):
        shutil.copytree(tiny_llama, place / "toy")
        shutil.copy(corpus, place / "pairs.tsv")
    options = ("build", "--target", "tatar", "--vocab-size", 600)
    for arguments, cwd in (
        (("--source", "toy", "--parallel", "pairs.tsv", "--output", tmp_path / "a"), near),
        (("--source", far / "toy", "--parallel", far / "pairs.tsv", "--output", tmp_path / "b"), near),
        (("--source", "./toy/", "--parallel", "../deep/pairs.tsv", "--output", tmp_path / "c"), far),
    ):
        monkeypatch.chdir(cwd)
        code, _, said = run_inside(capsys, *options, *arguments)
        assert code == 0, said
    first = files_of(tmp_path / "a")
    assert {"report.json", "report.html", "README.md"} <= first.keys()
    assert first == files_of(tmp_path / "b") == files_of(tmp_path / "c")
    assert str(tmp_path).encode() not in b"".join(first.values())


@pytest.mark.parametrize("name", ["my: model", "[x", "a\nlicence: mit"])
def test_the_card_names_a_source_whatever_it_is_called(
    name: str, tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / name
    shutil.copytree(tiny_llama, source)
    options = ("--target", "tatar", "--parallel", corpus, "--vocab-size", 600, "--output", tmp_path / "out")
    code, _, said = run_inside(capsys, "build", "--source", source, *options)
    assert code == 0, said
    _, header, body = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts == {"base_model": name, "language": ["tt"], "tags": ["vocabulary-transfer", "vocabtransfer"]}
    assert body.splitlines()[0].endswith("with a Tatar vocabulary")


def test_text_in_another_language_is_said_in_the_build(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(__file__).parents[1] / "data" / "held_out" / "nl.txt"
    options = ("--target", "tatar", "--text", text, "--vocab-size", 600, "--dry-run", "--output", tmp_path / "out")
    code, out, said = run_inside(capsys, "build", "--source", tiny_llama, *options)
    assert code == 0, said
    assert "nl.txt" in out and "script of Tatar" in " ".join(out.split())


def test_a_result_worse_than_the_untouched_model_is_said(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    """The note stands in facts, report and card exactly where the score says so."""
    poor, good = (HeldOutScore(bits, 2.0, 10, 5, 10, 0) for bits in (1.7034, 1.5994))
    assert AgainstSource(poor, good).warnings() == () == AgainstSource(good, good).warnings()
    (said,) = AgainstSource(good, poor).warnings()
    assert "1.703 bits per byte against 1.599" in said
    text = Path(__file__).parents[1] / "data" / "held_out" / "tt.txt"
    scored: dict[str, Any] = {"held_out": (text,), "held_out_bytes": 2_000}
    result = vt.build(
        vt.BuildRequest(str(tiny_llama), "tatar", tmp_path / "out", parallel=(corpus,), method="mean", **scored)
    )
    worse = result.facts["held_out"]["gain"] < 0
    for text in (
        str(result.facts["notes"]),
        *((tmp_path / "out" / name).read_text() for name in ("README.md", "report.html")),
    ):
        assert ("worse than the untouched model" in text) == worse
