"""What `control.py` measured: every curve in a line, and the vocabularies beside each other at equal CPU time and text."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "leaderboard"))

from table_parts import NAMES, markdown

HERE = Path(__file__).parent
#: A folder holds curves of the same settings: those of a whole run, and shorter ones made on a desk.
WHOLE, DESK = HERE / "results" / "control", HERE / "results" / "control-desk"
KINDS = {"own": "same kind of text", "other": "another kind"}
OWN = "own"
#: Equal parts of what the shorter of the curves took, at whose ends vocabularies are compared.
PARTS = 4

UNITS = ("CPU seconds", "characters")

Facts = Mapping[str, Any]


def curves(folder: Path) -> list[dict[str, Any]]:
    """Return what is known of every start in a folder."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def cost(facts: Facts, unit: str) -> float:
    """Return what one update of a start takes, in CPU seconds (0 where that was not measured) or characters read."""
    if unit == "CPU seconds":
        return float(facts.get("cpu_seconds_an_update", 0))
    return float(facts["batch_tokens"] * facts["characters_a_token"])


def points_of(facts: Facts) -> Iterator[Mapping[str, Any]]:
    """Yield the curves of a start, one for each rate, to their ends.

    One that was ended early, because neither kind of text gained any more, goes on as what `adapt` keeps: its best on the
    same kind of text as it was trained on.
    """
    for points in facts["curves"].values():
        last, end = points["updates"][-1], facts["updates"]
        if last == end:
            yield points
            continue
        best = int(np.argmin(points["own"]))
        kept = {kind: [*points[kind], points[kind][best], points[kind][best]] for kind in KINDS}
        yield {"updates": [*points["updates"], last + 1, end], **kept}


def score_at(facts: Facts, kind: str, updates: float) -> float:
    """Return bits per byte after so many updates, the best of the rates that go so far, on straight lines between points."""
    return min(
        float(np.interp(updates, points["updates"], points[kind]))
        for points in points_of(facts)
        if updates <= points["updates"][-1] + 1e-6  # the end of a curve, give or take a rounding
    )


def last_update(facts: Facts) -> int:
    """Return how far the longest curve of a start goes."""
    return max(points["updates"][-1] for points in points_of(facts))


def comparable(folder: Path, unit: str) -> Iterator[tuple[Facts, list[Facts]]]:
    """Yield what a source is with its own vocabulary, and its other starts in the same language, where both have costs."""
    found = [facts for facts in curves(folder) if facts["curves"] and cost(facts, unit)]
    for own in found:
        same = [facts for facts in found if all(facts[key] == own[key] for key in ("source", "language"))]
        others = [facts for facts in same if facts["start"] != OWN and not facts["after"]]
        if own["start"] == OWN and others:
            yield own, others


def compared(own: Facts, others: list[Facts], unit: str) -> str:
    """Return a table of the vocabularies at equal CPU time or text, the best in bold."""
    starts = [own, *others]
    end = min(last_update(facts) * cost(facts, unit) for facts in starts)
    header = [unit, *(f"{named}: `{facts['start']}`" for named in KINDS.values() for facts in starts)]
    lines = []
    for part in range(PARTS + 1):
        spent = end * part / PARTS
        line = [f"{spent:,.0f}"]
        for kind in KINDS:
            scores = [score_at(facts, kind, spent / cost(facts, unit)) for facts in starts]
            line += [f"**{score:.3f}**" if score == min(scores) else f"{score:.3f}" for score in scores]
        lines.append(line)
    return markdown(header, lines, 0)


def tables(unit: str) -> Iterator[str]:
    """Yield the tables at equal CPU seconds or characters, each below a line that says of what; the longer of two alone."""
    known = set()
    for folder in (WHOLE, DESK):
        for own, others in comparable(folder, unit):
            if (of := (own["source"], own["language"])) in known:
                continue
            known.add(of)
            least = min(last_update(facts) for facts in (own, *others))
            size = f"{own['characters']:,} characters of text, {least:,} updates or more"
            name = f"{own['source']}, {NAMES[own['language']]}, {size}"
            yield f"{name}, at equal {unit}:\n\n{compared(own, others, unit)}"


def text_of() -> str:
    """Return all that is in the results: a line for each curve, then the tables."""
    lines = []
    for folder in (WHOLE, DESK):
        for facts in curves(folder):
            begin = f"{facts['source']}-{facts['language']}-{facts['start']}: {facts['characters']:,} characters"
            lines.append(f"{begin}, CPU seconds an update: {facts.get('cpu_seconds_an_update', 'not measured')}")
            for rate, points in facts["curves"].items():
                three = (
                    f"{kind} {points[kind][0]:.3f} {min(points[kind]):.3f} {points[kind][-1]:.3f}" for kind in KINDS
                )
                lines.append(f"  {rate}: {', '.join(three)}")
    lines += ["", *(f"{table}\n" for unit in UNITS for table in tables(unit))]
    return "\n".join(lines)
