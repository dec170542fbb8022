"""Run the suite with the oldest packages that pyproject.toml allows: an environment of its own, then the tests.

    python .ci/lowest.py build/lowest [--list] [words for pytest]

Every floor becomes "the newest patch of that series" (numpy>=2.0 is numpy==2.0.*): who has a series has its patches.
The tools of the tests themselves (pytest and its plugins) are the newest.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("corpora", "data", "notebook", "plot", "serve", "training")
FLOOR = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)")


def floors() -> list[str]:
    """Return a constraint for every package that the library and its extras need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for name in EXTRAS for each in project["optional-dependencies"][name])]
    found = [FLOOR.match(each) for each in wanted]
    return [f"{match[1]}=={match[2]}.*" for match in found if match is not None]


def main() -> None:
    """Make the environment where there is none, and run the tests in it."""
    place, words = Path(sys.argv[1]).absolute(), sys.argv[2:]
    if "--list" in words:
        print("\n".join(floors()))
        return
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (place / "constraints.txt").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        constraints = place / "constraints.part"
        constraints.write_text("\n".join(floors()) + "\n", encoding="utf-8")
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        subprocess.run([*install, "--editable", f"{ROOT}[test]"], check=True)
        constraints.rename(place / "constraints.txt")
    subprocess.run([str(python), "-m", "pytest", "-n", "auto", "--dist", "loadfile", *words], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
