"""Run the suite with the oldest packages that pyproject.toml allows: an environment of its own, then the tests.

    python .ci/lowest.py build/lowest [words for pytest]

uv chooses them, for it can: of each package that pyproject.toml names the oldest that it allows, of all others the
newest that go with these. Only the tools of the tests (pytest and its plugins) are the newest, too.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = "corpora,data,notebook,plot,serve,suite,training"


def make(place: Path, python: Path) -> None:
    """Make the environment. What was begun and not ended is begun again, with what was fetched still in uv's cache."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "uv"], check=True)
    uv = [str(python), "-m", "uv", "pip"]
    install = [*uv, "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "--resolution", "lowest-direct", "--editable", f"{ROOT}[{EXTRAS}]"], check=True)
    chosen = subprocess.run(
        [*uv, "freeze", "--exclude-editable", "--python", str(python)], check=True, capture_output=True, text=True
    ).stdout
    constraints = place / "constraints.part"
    constraints.write_text(chosen, encoding="utf-8")
    subprocess.run([*install, "--constraint", str(constraints), "--editable", f"{ROOT}[test]"], check=True)
    constraints.rename(place / "constraints.txt")


def main() -> None:
    """Make the environment where there is none, and run the tests in it."""
    place, words = Path(sys.argv[1]).absolute(), sys.argv[2:]
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (place / "constraints.txt").is_file():
        make(place, python)
    subprocess.run([str(python), "-m", "pytest", "-n", "auto", "--dist", "worksteal", *words], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
