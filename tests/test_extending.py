"""What it takes to ship an aligner, a romanizer, an objective or an endpoint: the diffs of docs/extend, applied and used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIFFS = sorted((ROOT / "docs/extend/diffs").glob("*.diff"))
#: What each has to do once it is there, by the name of its diff.
USES = {
    "aligner": """
from vocabtransfer.alignment import align
assert align([("the green house", "yäşel öy bu")], aligner="diagonal").links(0) == [(0, 0), (1, 1), (2, 2)]
""",
    "romanizer": """
from vocabtransfer.transliteration import find_transliterator
assert list(find_transliterator("coptic").romanize(["ⲛⲟⲃⲉ"])) == ["nobe"]
""",
    "objective": """
from vocabtransfer.training.objectives import check_objective
assert check_objective("smoothed", False).make(None).name == "smoothed"
""",
    "endpoint": """
from vocabtransfer.serving.endpoints import endpoints
assert [each.answer.__name__ for each in endpoints() if each.path == "/count/{head}"] == ["count"]
""",
}
#: The command line offers what the library knows.
CHOICES = """
from cli.choices import choices_of
from vocabtransfer.alignment.registry import OWN, aligners
from vocabtransfer.training.objectives import objectives
from vocabtransfer.transliteration import TRANSLITERATORS
assert set(choices_of("align corpus", "aligner")) == {OWN, *aligners()}
assert set(choices_of("adapt", "objective")) == set(objectives())
assert set(choices_of("romanize", "transliterator")) == set(TRANSLITERATORS)
"""


def test_there_is_a_diff_for_each() -> None:
    assert [diff.stem for diff in DIFFS] == sorted(USES)


@pytest.mark.parametrize("diff", DIFFS, ids=lambda diff: diff.stem)
def test_three_files_are_enough(diff: Path) -> None:
    files = re.findall(r"^\+\+\+ b/(\S+)$", diff.read_text(encoding="utf-8"), re.MULTILINE)
    assert 1 <= len(files) <= 3 and len(set(files)) == len(files)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="the diffs are applied with git")
def test_the_diffs_apply_and_what_they_add_works(tmp_path: Path) -> None:
    for room in ("vocabtransfer", "cli"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for diff in DIFFS:
        apply = subprocess.run(["git", "apply", str(diff)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert apply.returncode == 0, f"{diff.name} does not fit the tree any more: {apply.stderr}"
    code = "".join(f"# {name}\n{use}" for name, use in sorted(USES.items())) + CHOICES
    # A copy has no compiled loops beside it yet, and these few words need none.
    found = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "1"}
    used = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=found, capture_output=True, text=True, check=False
    )
    assert used.returncode == 0, used.stderr
