"""What was measured, kept beside the scripts. Light, so that a process that is measured loads nothing it does not need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def store(name: str, row: dict[str, Any]) -> None:
    """Print what was measured and keep it beside this file."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(row, indent=2) + "\n")
    print(json.dumps(row, indent=2))
