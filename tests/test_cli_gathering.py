"""Options that take several values: `--text a.txt b.txt`, as people type them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabtransfer_cli.gathering import repeat_options
from vocabtransfer_cli.main import run


class Option:
    def __init__(self, *, multiple: bool = False, is_flag: bool = False, nargs: int = 1) -> None:
        self.multiple, self.is_flag, self.nargs = multiple, is_flag, nargs


OPTIONS = {"--text": Option(multiple=True), "--size": Option(), "--json": Option(is_flag=True)}


def repeated(words: str, positional: bool = False) -> str:
    return " ".join(repeat_options(words.split(), OPTIONS, positional))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--text a b c", "--text a --text b --text c"),
        ("--text a b --size 3 --text c", "--text a --text b --size 3 --text c"),
        ("--text=a b", "--text=a --text b"),
        ("--text a --json b", "--text a --json b"),
        ("--size 3 4", "--size 3 4"),
        ("--text a b -- c d", "--text a --text b -- c d"),
        ("--text a --unknown b", "--text a --unknown b"),
        ("--text a -", "--text a --text -"),
        ("--text", "--text"),
    ],
)
def test_values_that_follow(typed: str, meant: str) -> None:
    assert repeated(typed) == meant


def test_arguments_keep_their_place() -> None:
    assert repeated("--text a MODEL", positional=True) == "--text a MODEL"
    assert repeated("MODEL --text a b", positional=True) == "MODEL --text a --text b"


@given(st.lists(st.sampled_from(["--text", "--size", "--json", "a", "b", "--", "--text=c"])), st.booleans())
def test_only_options_are_added_and_twice_changes_nothing_more(words: list[str], positional: bool) -> None:
    once = repeat_options(words, OPTIONS, positional)
    assert [word for word in once if word != "--text"] == [word for word in words if word != "--text"]
    assert repeat_options(once, OPTIONS, positional) == once


def test_two_texts_after_one_option(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"een {name} boek\n")
    with pytest.raises(SystemExit) as stop:
        run(["evaluate", str(tiny_llama), "--text", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--json"])
        raise SystemExit(0)
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
