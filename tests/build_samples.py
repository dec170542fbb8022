"""A few sentence pairs, written often enough to build a tiny model's vocabulary from."""

from itertools import product
from pathlib import Path

ENGLISH = (
    "the book is on the table . | a new file was opened | I see two houses and one book | close the window , please"
)
TATAR = "китап өстәл өстендә . | яңа файл ачылды | мин ике йорт һәм бер китап күрәм | тәрәзәне ябыгыз , зинһар"


def write_pairs(path: Path, english: str = ENGLISH, target: str = TATAR) -> Path:
    """Write sentence pairs, parted by bars, twelve times over as a tab-separated corpus; return its path."""
    rows = zip(english.split("|"), target.split("|"), strict=True)
    path.write_text("".join(f"{a.strip()}\t{b.strip()}\n" for a, b in rows) * 12, encoding="utf-8")
    return path


def write_long_pairs(path: Path) -> Path:
    """Write every three of the sample sentences in a row, each line once: distillation reads a text once."""
    pairs = [(a.strip(), b.strip()) for a, b in zip(ENGLISH.split("|"), TATAR.split("|"), strict=True)]
    rows = product(pairs, pairs, pairs)
    path.write_text(
        "".join("\t".join(map(" ".join, zip(*some, strict=True))) + "\n" for some in rows), encoding="utf-8"
    )
    return path
