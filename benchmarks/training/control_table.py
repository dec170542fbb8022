"""The table of `control.py`: a new vocabulary against the source's own, with the same text and in the same CPU time."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

OWN = "own"
KINDS = ("own", "other")
RESULTS = Path(__file__).parent / "results" / "control"


def at(points: dict[str, Any], kind: str, updates: float) -> float:
    """Return bits per byte after so many updates, on straight lines between points; the last point beyond the end."""
    pairs = list(zip(points["updates"], points[kind], strict=True))
    for (start, before), (end, after) in pairwise(pairs):
        if updates <= end:
            return float(before + (after - before) * (updates - start) / (end - start))
    return float(pairs[-1][1])


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
