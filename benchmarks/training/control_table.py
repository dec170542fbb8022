"""What `control.py` measured, a line for each curve: bits per byte at the beginning, at best and at the end."""

import json
from pathlib import Path

KINDS = ("own", "other")
RESULTS = Path(__file__).parent / "results" / "control"


def text_of() -> str:
    """Return all that is in the results, a line for each curve."""
    lines = []
    for file in sorted(RESULTS.glob("*.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        lines.append(f"{file.stem}: {facts['characters']:,} characters, {facts.get('cpu_seconds_an_update')}")
        for rate, points in facts["curves"].items():
            scores = (f"{kind} {points[kind][0]:.3f} {min(points[kind]):.3f} {points[kind][-1]:.3f}" for kind in KINDS)
            lines.append(f"  {rate}: {', '.join(scores)}")
    return "\n".join(lines)
