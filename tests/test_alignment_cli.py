"""The commands of `vocabtransfer align`: both forms of the first, merge, show and filter, and what they refuse."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from vocabtransfer_cli import main
from vocabtransfer_cli.align import align_group

from vocabtransfer.alignment.table import WordTable
from vocabtransfer.alignment.words import split_words

ENGLISH = ("the book is here .", "a new book", "I see the house", "the house is new .", "here is a house and a book .")
TATAR = ("китап монда .", "яңа китап", "мин өй күрәм", "өй яңа .", "монда өй һәм китап .")

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `align` with arguments and --json as the program does; returns the exit code and the object printed."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.add_typer(align_group, name="align")
    app.command("other")(lambda: None)
    monkeypatch.setattr(main, "app", app)

    def run_command(*words: Any, plain: bool = False) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as stop:
            main.run(["align", *map(str, words), *([] if plain else ["--json"])])
            raise SystemExit(0)
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out if plain else json.loads(captured.out)

    return run_command


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in zip(ENGLISH, TATAR, strict=True)) * 8, encoding="utf-8")
    return path


@pytest.fixture
def table(run: Run, corpus: Path, tmp_path: Path) -> Path:
    path = tmp_path / "en-tt.tsv.gz"
    assert run(corpus, "--target", "tatar", "--output", path)[0] == 0
    return path


def test_the_first_command_needs_no_name(run: Run, corpus: Path, tmp_path: Path) -> None:
    code, facts = run(corpus, "--target", "tatar", "--output", tmp_path / "a.tsv")
    assert code == 0 and facts["pairs"] == 40 and facts["source_words"] == 11
    assert run("corpus", "--target", "tatar", "--output", tmp_path / "b.tsv", corpus)[0] == 0
    assert run("--target", "tatar", "--output", tmp_path / "c.tsv", corpus)[0] == 0
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes() == (tmp_path / "c.tsv").read_bytes()
    assert WordTable.load(tmp_path / "a.tsv").lookup("китап")[0][0] == "book"


def test_help_names_every_command(run: Run) -> None:
    code, said = run("--help", plain=True)
    assert code == 0 and all(name in said for name in ("corpus", "merge", "show", "filter"))
    for name in ("corpus", "merge", "show", "filter"):
        code, said = run(name, "--help", plain=True)
        assert code == 0 and f"vocabtransfer align {'' if name == 'corpus' else name}".strip() in said


def test_sharded_and_in_one_piece_hold_the_same_words(run: Run, corpus: Path, tmp_path: Path, table: Path) -> None:
    code, facts = run(corpus, "--target", "tt", "--output", tmp_path / "s.tsv", "--shard-pairs", 15, "--processes", 1)
    assert code == 0 and facts["aligner"].endswith("shards of 15 pairs")
    sharded, whole = WordTable.load(tmp_path / "s.tsv"), WordTable.load(table)
    assert sharded.source_words == whole.source_words and sharded.lookup("өй")[0][0] == "house"
    assert not list(tmp_path.glob(".*"))  # the work folder is gone


@pytest.mark.parametrize("method", ["posterior", "intersection", "union", "grow-diag-final-and"])
def test_links_come_with_the_words_they_count(run: Run, corpus: Path, tmp_path: Path, method: str) -> None:
    links, words = tmp_path / "links.gz", tmp_path / "words.tsv"
    options = ("--links", links, "--words", words, "--symmetrise", method)
    code, facts = run(corpus, "--target", "tatar", "--output", tmp_path / "t.tsv", *options)
    assert code == 0 and facts["links"] == str(links) and facts["aligner"].endswith(method)
    lines = gzip.decompress(links.read_bytes()).decode().splitlines()
    pairs = [line.split("\t") for line in words.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(pairs) == 40
    assert pairs[0] == [" ".join(split_words(ENGLISH[0])), TATAR[0]]
    assert "1-0" in lines[0].split()  # book - китап
    again = tmp_path / "again.tsv"
    assert run(words, "--target", "tatar", "--output", again, "--use-links", links)[0] == 0
    assert WordTable.load(again).lookup("китап")[0][0] == "book"


def test_a_dictionary_decides_where_nothing_else_does(run: Run, tmp_path: Path) -> None:
    corpus, dictionary = tmp_path / "c.tsv", tmp_path / "d.tsv"
    corpus.write_text("apple pear\tгруша яблоко\n" * 3, encoding="utf-8")
    dictionary.write_text("# fruit\napple\tяблоко\npear\tгруша\tnoun\nnot there\tнет\n", encoding="utf-8")
    options = (corpus, "--target", "russian", "--dictionary", dictionary)
    assert run(*options, "--output", tmp_path / "t.tsv")[0] == 0
    assert WordTable.load(tmp_path / "t.tsv").lookup("яблоко")[0][0] == "apple"
    dictionary.write_text("apple яблоко\n", encoding="utf-8")
    code, facts = run(*options, "--output", tmp_path / "u.tsv")
    assert code == 1 and "line 1 has no tab" in facts["error"]


@pytest.mark.slow
def test_cognates_are_found_through_romanization(run: Run, tmp_path: Path) -> None:
    corpus = tmp_path / "c.tsv"
    corpus.write_text("computer internet\tинтернет компьютер\n" * 3, encoding="utf-8")
    assert run(corpus, "--target", "russian", "--output", tmp_path / "t.tsv", "--romanize")[0] == 0
    assert WordTable.load(tmp_path / "t.tsv").lookup("компьютер")[0][0] == "computer"


def test_merging_adds_up_with_weights(run: Run, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "merged.tsv"
    code, facts = run("merge", table, table, "--weight", 1, "--weight", 0.5, "--output", output)
    assert code == 0 and facts["tables"] == 2
    merged, one = WordTable.load(output), WordTable.load(table)
    assert merged.counts.sum() == pytest.approx(1.5 * one.counts.sum(), rel=0.01)
    assert merged.source_words == one.source_words


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{table}",), 2, "two tables or more"),
        (("{table}", "{table}", "--weight", "1"), 2, "1 weights"),
        (("{table}", "{table}", "--weight", "1", "--weight", "-1"), 2, "positive number"),
        (("{table}", "missing.tsv"), 2, "missing.tsv: there is no such file"),
        (("{table}", "{dutch}"), 2, "different target languages (nl, tt)"),
    ],
)
def test_merging_refuses_what_does_not_fit(
    run: Run, table: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    dutch = tmp_path / "en-nl.tsv"
    dutch.write_text('# {"format": "vocabtransfer word table 1", "target": "nl"}\nbook\tboek\t1\n', encoding="utf-8")
    words = [word.format(table=table, dutch=dutch) for word in arguments]
    found, facts = run("merge", *words, "--output", tmp_path / "out.tsv")
    assert found == code and message in facts["error"]
    assert not (tmp_path / "out.tsv").exists()


def test_showing_a_word_of_either_side(run: Run, table: Path) -> None:
    code, facts = run("show", table, "--word", "китап", "--word", "house", "--top", 1)
    assert code == 0
    said = facts["words"]["китап"]
    assert said["source"] is None and said["target"]["occurs"] == 24
    assert [entry["word"] for entry in said["target"]["linked"]] == ["book"]
    assert facts["words"]["house"]["source"]["linked"][0]["word"] == "өй"
    code, printed = run("show", table, "--word", "китап", plain=True)
    assert code == 0 and "24 times" in printed and "book" in printed
    code, facts = run("show", table, "--word", "юк", "--word", "book")
    assert code == 1 and "no source or target word 'юк'" in facts["error"]
    code, facts = run("show", table)
    assert code == 0 and facts["target"] == "tt" and facts["pairs"] == 40 and facts["source_words"] == 11


def test_filtering_says_how_many_and_why(run: Run, tmp_path: Path) -> None:
    good = [(f"the book number {n} is here", f"бу китап {n} монда ята") for n in range(30)]
    bad = ["same words\tsame words", "the book number 1 is here\tбу китап 1 монда ята", "nul\0\tнуль", "\tпусто"]
    path, kept, dropped = tmp_path / "c.tsv", tmp_path / "kept.tsv.gz", tmp_path / "dropped.tsv"
    lines = ["\t".join(pair) for pair in good] + bad
    path.write_bytes(("\n".join(lines) + "\n").encode() + b"caf\xe9\tx\n")
    options = ("--target", "tatar", "--output", kept, "--rejected", dropped)
    code, facts = run("filter", path, *options)
    assert code == 0 and facts["read"] == 35 and facts["kept"] == 30
    assert facts["dropped"] == {
        "not in UTF-8": 1,
        "seen before": 1,
        "with a NUL": 1,
        "with an empty side": 1,
        "with identical sides": 1,
    }
    assert gzip.decompress(kept.read_bytes()).decode().splitlines() == lines[:30]
    assert [line.split("\t")[0] for line in dropped.read_text(encoding="utf-8").splitlines()] == [
        "with identical sides",
        "seen before",
    ]
    code, printed = run("filter", path, *options, "--overwrite", plain=True)
    assert code == 0 and "1 not in UTF-8" in printed


def test_outputs_are_not_overwritten_unasked(run: Run, corpus: Path, table: Path, tmp_path: Path) -> None:
    before = table.read_bytes()
    for words in (
        (corpus, "--target", "tatar", "--output", table),
        (corpus, "--target", "tatar", "--output", tmp_path / "new.tsv", "--links", table),
        ("merge", table, table, "--output", corpus),
        ("filter", corpus, "--target", "tatar", "--output", table),
    ):
        code, facts = run(*words)
        assert code in (1, 2) and ("exists" in facts["error"] or "another file" in facts["error"])
    assert table.read_bytes() == before and not (tmp_path / "new.tsv").exists()
    code, facts = run("filter", corpus, "--target", "tatar", "--output", corpus, "--overwrite")
    assert code == 2 and "is the name of another file" in facts["error"]
    assert run(corpus, "--target", "tatar", "--output", table, "--overwrite")[0] == 0
    assert table.read_bytes() == before


def test_nothing_left_is_an_error_and_no_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("Name\tName\nЕдиница\tЕдиница\n", encoding="utf-8")
    code, facts = run("filter", path, "--target", "dutch", "--output", tmp_path / "kept.tsv")
    assert code == 1 and "no sentence pair is left (2 with identical sides)" in facts["error"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.tsv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "t.json"), "the name of a table ends in"),
        (("--output", "t.tsv", "--engine", "spark"), "--engine is local or ray, not 'spark'"),
        (("--output", "t.tsv", "--aligner", "giza"), "neural, eflomal, thot, not 'giza'"),
        (("--output", "t.tsv", "--symmetrise", "both"), "--symmetrise is one of posterior"),
        (("--output", "t.tsv", "--effort", "none"), "--effort is accurate or fast, not 'none'"),
        (("--output", "t.tsv", "--aligner", "thot", "--shard-pairs", "5"), "in one piece"),
        (("--output", "t.tsv", "--aligner", "thot", "--symmetrise", "posterior"), "without probabilities"),
        (("--output", "t.tsv", "--use-links", "l", "--links", "k"), "leave out the options"),
        (("--output", "t.tsv", "--use-links", "missing"), "there is no such file"),
        (("--output", "t.tsv", "--columns", "1"), "two numbers"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(
    run: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, facts = run(corpus, "--target", "tatar", *options)
    assert code == 2 and message in facts["error"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["corpus.tsv"]
