"""Text and pairs are given alike everywhere: a str, a Path, one or many, plain or in records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from build_samples import write_pairs
from tokenizer_samples import made_up_text, tiny_backend
from transformers import PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.files.text import read_text
from vocabtransfer.leaderboard.inputs import LeaderboardRequest

LINES = made_up_text(60)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"id": n, "body": line}) + "\n" for n, line in enumerate(LINES)))
    return path


def tiny() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tiny_backend(), eos_token="<|endoftext|>")


WAYS: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "Path": lambda path: path,
    "list of Path": lambda path: [path],
    "Text": read_text,
    "lines": lambda path: list(read_text(path)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_trainer_takes_text_in_every_way(way: str, plain: Path, records: Path) -> None:
    for path in (plain, records):
        made = vt.train_tokenizer(WAYS[way](path), like=tiny(), vocab_size=400)
        assert len(made) == len(vt.train_tokenizer(LINES, like=tiny(), vocab_size=400)) == 400
        longer = vt.extend_tokenizer(tiny(), WAYS[way](path), new_tokens=30)
        assert longer.new_tokens == 30
    figures = vt.compare_tokenizers({"tiny": tiny()}, {"a": WAYS[way](plain)}).of("tiny")
    assert figures.words == vt.compare_tokenizers({"tiny": tiny()}, {"a": LINES}).of("tiny").words


def test_what_names_no_file_is_no_file() -> None:
    for wrong in ("just a text", "two\nlines", b"bytes"):
        with pytest.raises(vt.UsageError, match="one string"):
            vt.train_tokenizer(wrong, like=tiny(), vocab_size=400)  # type: ignore[arg-type]


def test_pairs_are_taken_in_every_way(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "en-tt.tsv")
    expected = vt.align_corpus(list(vt.read_parallel(path)))
    for given in (str(path), path, [path], [str(path)], vt.read_parallel(path)):
        table = vt.align_corpus(given)  # type: ignore[arg-type]
        assert table.source_words == expected.source_words and (table.counts != expected.counts).nnz == 0


def test_requests_take_paths_in_every_way(plain: Path) -> None:
    for given in (str(plain), plain, [plain], (str(plain),)):
        request = vt.BuildRequest("s", "tt", plain.parent, parallel=given, held_out=given, dictionary=given)  # type: ignore[arg-type]
        assert request.parallel == request.held_out == request.dictionary == (plain,)
        contest = LeaderboardRequest("s", "tt", given, held_out=given, other_text=given)  # type: ignore[arg-type]
        assert contest.parallel == contest.held_out == contest.other_text == (plain,)


def test_all_lines_keep_the_empty_ones_of_plain_files(tmp_path: Path, records: Path) -> None:
    path = tmp_path / "gaps.txt"
    path.write_text("a\n\nb\n", encoding="utf-8")
    assert list(read_text(path).all_lines()) == ["a", "", "b"]
    assert list(read_text(records).all_lines()) == LINES
    assert list(read_text([path, records], field=None).all_lines()) == ["a", "", "b", *LINES]


def test_romanize_reads_records(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from vocabtransfer_cli.main import run

    output = tmp_path / "latin.txt"
    for extra in ([], ["--field", "body", "--overwrite"]):
        with pytest.raises(SystemExit) as stop:
            run(["romanize", str(records), "--language", "tatar", "--output", str(output), *extra])
            raise SystemExit(0)
        assert not stop.value.code, capsys.readouterr().err
        lines = output.read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(LINES) and lines[0].startswith("Kaka katada")
