"""A few sentence pairs, written often enough to build a tiny model's vocabulary from."""

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
