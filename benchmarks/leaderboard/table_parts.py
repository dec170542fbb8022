"""What the scripts that write tables share: rows of a results file, names of languages, Markdown."""

import json
from collections.abc import Sequence
from pathlib import Path

from vocabtransfer.leaderboard.contest import Row

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "nl": "Dutch", "ru": "Russian", "tr": "Turkish", "tt": "Tatar", "sw": "Swahili",
    "de": "German", "hi": "Hindi", "kk": "Kazakh", "fi": "Finnish", "id": "Indonesian", "pl": "Polish",
    "et": "Estonian", "ka": "Georgian", "af": "Afrikaans", "ms": "Malay", "cs": "Czech",
}  # fmt: skip


def rows_in(path: Path) -> list[Row]:
    """Return the rows of a results file; none where it was not run."""
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first ``words`` columns are text, and the others numbers."""
    marks = ["---"] * words + ["---:"] * (len(header) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, marks, *lines])
