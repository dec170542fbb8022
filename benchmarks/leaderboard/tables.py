"""Write the tables of README.md, of two pages of docs/ and the front page, and the plot, from the results: none can drift.

python benchmarks/leaderboard/tables.py            # rewrites what stands between the marks in README.md
python benchmarks/leaderboard/tables.py --check    # fails where README.md does not say what the results say
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "training"))

import control_table
import sources_table
from table_parts import NAMES, RESULTS, markdown, rows_in

from vocabtransfer.leaderboard.contest import summary

HERE = Path(__file__).parent
MAIN, ENCODERS = ["nl", "ru", "tr", "tt"], ["nl", "ru", "tr"]
UNSEEN, SEEN = ["de", "hi", "kk", "fi", "pl"], ["sw", "id"]
PLAIN = "trans_tokenization"
#: Scores this near to the best are ties.
TIE = 1.005

Table = dict[str, dict[str, Any]]


def load(name: str, language: str) -> Table:
    """Return the summary lines of a results file by method; none when it was not run."""
    return {line["method"]: line for line in summary(rows_in(RESULTS / f"{name}-{language}.json"))}


def trained(language: str) -> Table:
    """Return the lines of the trained contest: after each number of updates the better of the two learning rates."""
    found = load("causal", language)
    for method, line in load("slow", language).items():
        other = found.setdefault(method, line)
        other["seconds"] = min(line["seconds"], other["seconds"])
        for key in other["scores"]:
            if line["scores"][key] < other["scores"][key]:
                for facts in ("scores", "spread"):
                    other[facts][key] = line[facts][key]
        other["rates"] = 2
    return found


def merged(language: str) -> Table:
    """Return the lines of the trained contest, and of the untrained one for the methods that were not trained.

    What a method took is the shortest of its runs: the others shared the machine with other work.
    """
    untrained = load("step0", language)
    found = {**untrained, **trained(language)}
    for method, line in untrained.items():
        found[method]["seconds"] = min(line["seconds"], found[method]["seconds"])
    return found


def cell(line: Mapping[str, Any] | None, key: str, best: float | None) -> str:
    """Return a score to three places, bold where it ties with the best, with half the spread where seeds differ."""
    if line is None or key not in line["scores"]:
        return ""
    score, spread = line["scores"][key], line["spread"][key]
    text = f"{score:.3f}"
    if best is not None and score <= best * TIE:
        text = f"**{text}**"
    return text + (f" ±{spread / 2:.3f}" if spread else "")


def label(method: str) -> str:
    """Return a method's name as code; the name of a package is prose."""
    return method if " " in method else f"`{method}`"


def ranked(tables: Mapping[str, Table], key: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the best score by language, and how far every method is above it, best first.

    The latter is the mean ratio over the languages in which the method has a score after ``key`` updates.
    """
    scores = {
        code: {name: line["scores"][key] for name, line in table.items() if key in line["scores"]}
        for code, table in tables.items()
    }
    best = {code: min(found.values()) for code, found in scores.items() if found}
    above: dict[str, float] = {}
    for method in dict.fromkeys(name for found in scores.values() for name in found):
        ratios = [found[method] / best[code] for code, found in scores.items() if method in found]
        above[method] = sum(ratios) / len(ratios)
    return best, dict(sorted(above.items(), key=lambda item: item[1]))


def bits(tables: Mapping[str, Table], key: str) -> str:
    """Return a table of methods by languages after ``key`` updates, best first by the mean over languages."""
    best, above = ranked(tables, key)
    lines = []
    for method, ratio in above.items():
        cells = [cell(tables[code].get(method), key, best[code]) for code in best]
        both = key != "0" and all("rates" in tables[code].get(method, {}) for code in best)
        lines.append([label(method) + " †" * both, *cells, f"+{ratio - 1:.1%}"])
    return markdown(["method", *(NAMES[code] for code in best), "above the best"], lines)


def reached(tables: Mapping[str, Table]) -> str:
    """Return a table: after how many updates `auto` is where trans-tokenization is after the most."""
    lines = []
    for code, table in tables.items():
        ours, theirs = table.get("auto"), table.get(PLAIN)
        if not ours or not theirs or len(theirs["scores"]) < 2 or len(ours["scores"]) < 2:
            continue
        last = max(theirs["scores"], key=int)
        goal = theirs["scores"][last]
        first = min((int(key) for key, score in ours["scores"].items() if score <= goal), default=None)
        said = "not reached" if first is None else str(first) if first in (0, int(last)) else f"at most {first}"
        lines.append([NAMES[code], f"{goal:.3f} after {last}", f"{ours['scores']['0']:.3f} after 0", said])
    return markdown(["", "plain trans_tokenization", "`auto`", "updates `auto` needs"], lines)


def costs(tables: Mapping[str, Table]) -> str:
    """Return a table of what making the tables took, language by language."""
    lines = []
    for method in sorted({name for table in tables.values() for name in table}):
        cells = []
        for table in tables.values():
            line = table.get(method)
            cells.append(f"{line['seconds']:.1f} s, {line['megabytes']:,} MB" if line else "")
        lines.append([label(method), *cells])
    return markdown(["method", *(NAMES[code] for code in tables)], lines)


def overview(tables: Mapping[str, Table]) -> str:
    """Return the table of docs/benchmarks.md: every method at once, after the most updates, and what it took."""
    best, above = ranked(tables, "0")
    last = max((key for table in tables.values() for line in table.values() for key in line["scores"]), key=int)
    lows, _ = ranked(tables, last)
    lines = []
    same: dict[Any, list[str]] = {}  # presets that differ on models with separate tables only
    for method in above:
        scores = tuple(table[method]["scores"]["0"] if method in table else None for table in tables.values())
        same.setdefault(scores, []).append(method)
    for names in same.values():
        # The one that was trained stands for all.
        method, *others = sorted(
            names, key=lambda name: -sum(len(t[name]["scores"]) for t in tables.values() if name in t)
        )
        cells = []
        for code, table in tables.items():
            line = table.get(method)
            steps = [cell(line, key, low.get(code)).split(" ")[0] for key, low in (("0", best), (last, lows))]
            cells.append(" → ".join(filter(None, steps)))
        took = tables["nl"].get(method)
        lines.append([", ".join(map(label, [method, *others])), *cells, f"{took['seconds']:.0f} s" if took else ""])
    return markdown(["", *(NAMES[code] for code in tables), "seconds for Dutch"], lines)


def encoders() -> str:
    tables = {code: load("retrieval", code) for code in ENCODERS}
    tables = {code: table for code, table in tables.items() if table}
    best = {code: max(line["scores"]["accuracy"] for line in table.values()) for code, table in tables.items()}
    lines, order = [], {}
    for method in dict.fromkeys(name for table in tables.values() for name in table):
        scores = [table[method]["scores"]["accuracy"] for table in tables.values() if method in table]
        order[method] = -sum(scores) / len(scores)
    for method in sorted(order, key=lambda name: order[name]):
        cells = []
        for code, table in tables.items():
            if method not in table:
                cells.append("")
                continue
            scores = table[method]["scores"]
            mark = "**" if scores["accuracy"] >= best[code] / TIE else ""
            both = f"{scores['to source']:.1%} / {scores['to target']:.1%}"
            cells.append(f"{mark}{scores['accuracy']:.1%}{mark} ({both})")
        lines.append([f"`{method}`", *cells])
    return markdown(["method", *(NAMES[code] for code in tables)], lines)


def peers() -> str:
    """Return a table of the authors' packages and our versions of their methods, at once and after 50 updates."""
    tables = {code: table for code in MAIN if (table := load("peers", code))}
    lines = []
    for method in dict.fromkeys(name for table in tables.values() for name in table):
        cells = []
        for table in tables.values():
            scores = table[method]["scores"] if method in table else {}
            cells.append(" → ".join(f"{score:.3f}" for score in scores.values()))
        lines.append([label(method), *cells])
    return markdown(["", *(NAMES[code] for code in tables)], sorted(lines))


def sections() -> dict[str, str]:
    """Return what stands between the marks of README.md by the name of the mark."""
    tables = {code: merged(code) for code in MAIN}
    unseen = {code: load("unseen", code) for code in UNSEEN}
    return {
        "at once": bits(tables, "0"),
        "after 50": bits(tables, "50"),
        "after 200": bits(tables, "200"),
        "reached": reached({code: trained(code) for code in MAIN}),
        "unseen": bits(unseen, "0"),
        "seen": bits({code: load("seen", code) for code in SEEN}, "0"),
        "peers": peers(),
        "retrieval": encoders(),
        "costs": costs(tables),
        **sources_table.tables(),
    }


def written(text: str, found: Mapping[str, str]) -> str:
    """Return README.md with the tables put between their marks."""
    for name, table in found.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text)  # noqa: B023
    return text


def plot(path: Path, methods: Sequence[str]) -> None:
    """Draw the curves of some methods, one panel a language."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "leaderboard"  # the same results, the same bytes
    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, code in zip(figure.subplots(2, 2).ravel(), MAIN, strict=True):
        table = trained(code)
        for number, method in enumerate(methods):
            if method in table:
                scores = table[method]["scores"]
                axes.plot([int(k) for k in scores], list(scores.values()), f"C{number}o-", label=method)
        axes.set_title(NAMES[code])
        axes.set_xlabel("updates of the vocabulary tables")
        axes.set_ylabel("bits per byte, held-out text")
    if figure.axes[0].lines:
        figure.axes[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    pages = {HERE / "README.md": sections()}
    pages[HERE.parents[1] / "docs" / "benchmarks.md"] = {
        "methods": overview({code: merged(code) for code in ["tt", "nl", "ru", "tr"]}),
        "sources": sources_table.overview(),
    }
    pages[HERE.parents[1] / "docs" / "shapes.md"] = {
        "control": "\n\n".join(control_table.tables("CPU seconds")),
        "fewer": sources_table.fewer(),
    }
    pages[HERE.parents[1] / "README.md"] = {
        "front": sources_table.front(),
        "front distilled": sources_table.front_distilled(),
    }
    for page, found in pages.items():
        before = page.read_text(encoding="utf-8")
        after = written(before, found)
        if not arguments.check:
            page.write_text(after, encoding="utf-8")
        elif after != before:
            sys.exit(f"{page} does not say what the results say: run tables.py.")
    if arguments.check:
        return
    shown = dict.fromkeys(name for code in MAIN for name in trained(code))
    plot(HERE / "curves.svg", list(shown))


if __name__ == "__main__":
    main()
