"""What a build is made from: tables, files of many kinds, wherever they lie, and what it says of them."""

import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_samples import command

import vocabtransfer as vt
from vocabtransfer.evaluation.against_source import AgainstSource, HeldOutScore
from vocabtransfer.pipeline.samples import sample_lines


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
    code, out, _ = command(
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
    code, out, err = command(
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
        code, _, said = command(capsys, *options, *arguments)
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
    code, _, said = command(capsys, "build", "--source", source, *options)
    assert code == 0, said
    _, header, body = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts == {"base_model": name, "language": ["tt"], "tags": ["vocabulary-transfer", "vocabtransfer"]}
    assert body.splitlines()[0].endswith("with a vocabulary for Tatar")


def test_text_in_another_language_is_said_in_the_build(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(__file__).parents[1] / "data" / "held_out" / "nl.txt"
    options = ("--target", "tatar", "--text", text, "--vocab-size", 600, "--dry-run", "--output", tmp_path / "out")
    code, out, said = command(capsys, "build", "--source", tiny_llama, *options)
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
