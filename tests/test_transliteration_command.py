"""`vocabtransfer romanize`: a filter on standard input or files."""

import gzip
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

# The command on its own, with the error handling of the real entry point.
SCRIPT = """
import typer
from cli import main
from cli.romanize import romanize
if "romanize" not in {command.name or command.callback.__name__ for command in main.app.registered_commands}:
    main.app.command()(romanize)
main.run()
"""


def command(*arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    root = Path(__file__).parents[1]
    words = [sys.executable, "-c", SCRIPT, "romanize", *arguments]
    return subprocess.run(words, input=text, capture_output=True, cwd=root, timeout=120, check=False)


def test_a_filter_from_standard_input() -> None:
    done = command("--language", "tatar", text="\ufeffҖәй ٣\r\n\nөч".encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "Jey 3\n\noch\n"


def test_files_with_a_summary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Казан\nplain\n", encoding="utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("һәм ٣\n".encode()))
    output = tmp_path / "new" / "out.txt.xz"
    arguments = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt.gz"), "--language", "tt", "--output", str(output))
    done = command(*arguments, "--digits", "keep", "--json")
    assert done.returncode == 0, done.stderr
    assert lzma.decompress(output.read_bytes()).decode() == "Kazan\nplain\nhem ٣\n"
    facts = json.loads(done.stdout)
    assert (facts["lines"], facts["changed_lines"], facts["characters"]) == (3, 2, 15)
    assert (facts["transliterator"], facts["digits"]) == ("table", "keep")
    again = command(*arguments)
    assert again.returncode == 1 and b"--overwrite" in again.stderr
    assert [path.name for path in output.parent.iterdir()] == ["out.txt.xz"]


@pytest.mark.parametrize(
    ("arguments", "text", "code", "told"),
    [
        (["--language", "nowhereish"], b"", 2, b"no language"),
        (["--language", "tt", "--json"], b"", 2, b"--json needs --output"),
        (["--language", "tt", "--digits", "drop"], b"", 2, b"fold or keep"),
        (["--language", "tt"], b"ok\n\xff\n", 1, b"line 2 is not UTF-8"),
        (["missing.txt", "--language", "tt"], b"", 2, b"no such file"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], text: bytes, code: int, told: bytes) -> None:
    done = command(*arguments, text=text)
    assert done.returncode == code and told in b" ".join((done.stderr + done.stdout).split())
    assert b"Traceback" not in done.stderr


def test_bad_input_leaves_no_output(tmp_path: Path) -> None:
    bad, output = tmp_path / "bad.txt", tmp_path / "out.txt"
    bad.write_bytes("өч\n".encode() + b"\xff\n")
    assert command(str(bad), "--language", "tt", "--output", str(output)).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
