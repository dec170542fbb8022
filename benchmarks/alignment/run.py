"""Alignment error rate and speed of the word aligner, beside other aligners on the same sentences.

    python benchmarks/alignment/run.py --gold FOLDER --pairs 5000 0 --peers eflomal "eflomal, 4 letters" fast_align thot

FOLDER holds, for each language, ``en-XX.gold.src``, ``.gold.tgt`` and ``.gold`` (links ``i-j`` sure, ``i?j`` possible)
and training text ``en-XX.src`` and ``.tgt``, plain or compressed with xz. Gold and training text are aligned together
(the first N pairs of it; 0 for all) and scored on gold. Peers are installed with pip into an environment of their own
under build/, which needs a C compiler for eflomal; thot (sil-thot) is run through our own interface to it and must be
installed here. Seconds count both directions, without starting Python; peers also read and write files of split words.
With --shard-pairs, our aligner is also run in shards of so many pairs, as it is for corpora larger than memory.
"""

import argparse
import json
import lzma
import re
import resource
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vocabtransfer.alignment import align, align_corpus
from vocabtransfer.alignment.symmetrise import METHODS, grow_diag_final_and

PACKAGES = ["eflomal==2.0.0", "systran-align==3.5.0"]
HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parents[1] / "build" / "aligner-venv"
Links = list[set[tuple[int, int]]]
Sentences = Sequence[list[str]]
# Links of the gold sentences by symmetrisation, with wall and CPU seconds.
Found = dict[str, tuple[Links, float, float]]


def read(path: Path) -> list[str]:
    packed = path.with_name(path.name + ".xz")
    data = lzma.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    return data.decode().removesuffix("\n").split("\n")


def read_gold(lines: list[str]) -> tuple[Links, Links]:
    """Return the sure and the possible links; every sure link is possible too."""
    found = [[(int(i), int(j), kind) for i, kind, j in re.findall(r"(\d+)([-?])(\d+)", line)] for line in lines]
    sure = [{(i, j) for i, j, kind in line if kind == "-"} for line in found]
    return sure, [{(i, j) for i, j, _ in line} for line in found]


def score(found: Links, sure: Links, possible: Links) -> dict[str, float]:
    in_sure = sum(len(a & s) for a, s in zip(found, sure, strict=False))
    in_possible = sum(len(a & p) for a, p in zip(found, possible, strict=False))
    made, wanted = sum(len(a) for a, _ in zip(found, sure, strict=False)), sum(map(len, sure))
    rates = {
        "aer": 1 - (in_sure + in_possible) / (made + wanted),
        "precision": in_possible / made,
        "recall": in_sure / wanted,
    }
    return {name: round(100 * rate, 2) for name, rate in rates.items()}


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def ours(source: Sentences, target: Sentences, gold: int, effort: str = "accurate") -> Found:
    align([(["a"], ["b"])])  # compiled, or loaded, before the clock starts
    return {
        method: timed(
            lambda method=method: align(zip(source, target, strict=True), symmetrise=method, effort=effort),
            lambda alignment: [set(alignment.links(pair)) for pair in range(gold)],
        )
        for method in METHODS
    }


def ours_in_shards(size: int, source: Sentences, target: Sentences, gold: int) -> Found:
    align_corpus([(["a"], ["b"])] * 2, shard_pairs=1)  # compiled, or loaded, before the clock starts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "links"
        pairs = zip(source, target, strict=True)
        return {
            "posterior": timed(
                lambda: align_corpus(pairs, shard_pairs=size, links=path), lambda _: read_links(path, gold)
            )
        }


def thot(source: Sentences, target: Sentences, gold: int) -> Found:
    return {
        "intersection": timed(
            lambda: align(zip(source, target, strict=True), aligner="thot", symmetrise="intersection"),
            lambda alignment: [set(alignment.links(pair)) for pair in range(gold)],
        )
    }


def peer(name: str, source: Sentences, target: Sentences, gold: int) -> Found:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / file for file in ("source", "target", "forward", "backward")]
        for path, side in zip(paths, (source, target), strict=False):
            path.write_text("".join(" ".join(sentence) + "\n" for sentence in side), encoding="utf-8")
        # The peer tells its own time: starting Python and importing are not part of it.
        command = [python, HERE / "peers.py", name, *paths]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        wall, cpu = map(float, said.splitlines()[-1].split())
        forward, backward = (read_links(path, gold) for path in paths[2:])
    if name == "fast_align":
        return {"its own": (forward, wall, cpu)}
    both = list(zip(forward, backward, strict=True))
    grown = [grow(a, b, len(s), len(t)) for (a, b), s, t in zip(both, source, target, strict=False)]
    return {
        "intersection": ([a & b for a, b in both], wall, cpu),
        "grow-diag-final-and": (grown, wall, cpu),
    }


def timed(work: Callable[[], Any], read: Callable[[Any], Links]) -> tuple[Links, float, float]:
    """Return the links that ``read`` finds in what ``work`` made, and wall and CPU seconds of the work."""
    began, used = time.perf_counter(), cpu_seconds()
    made = work()
    wall, cpu = time.perf_counter() - began, cpu_seconds() - used
    return read(made), wall, cpu


def read_links(path: Path, count: int) -> Links:
    lines = path.read_text().split("\n")[:count]
    return [{(int(i), int(j)) for i, j in (link.split("-") for link in line.split())} for line in lines]


def grow(
    forward: set[tuple[int, int]], backward: set[tuple[int, int]], rows: int, columns: int
) -> set[tuple[int, int]]:
    cells = np.zeros((2, rows, columns), dtype=bool)
    for way, links in zip(cells, (forward, backward), strict=True):
        for link in links:
            way[link] = True
    starts = (np.array([0, size]) for size in (rows, columns, rows * columns))
    made = grow_diag_final_and(*starts, cells[0].ravel(), cells[1].ravel()).reshape(rows, columns)
    return {(int(i), int(j)) for i, j in zip(*np.nonzero(made), strict=True)}


def compare(rows: list[dict[str, Any]]) -> None:
    """Print our default beside each peer's best links: error rates, and how many times as many pairs a second."""
    for corpus, pairs in dict.fromkeys((row["corpus"], row["pairs"]) for row in rows):
        here = [row for row in rows if (row["corpus"], row["pairs"]) == (corpus, pairs)]
        mine = next(row for row in here if row["aligner"] == "vocabtransfer")
        for name in dict.fromkeys(row["aligner"] for row in here if row["aligner"] != "vocabtransfer"):
            best = min((row for row in here if row["aligner"] == name), key=lambda row: row["aer"])
            wall, cpu = (best[kind] / max(mine[kind], 0.01) for kind in ("wall_seconds", "cpu_seconds"))
            print(
                f"{corpus}, {pairs:,} pairs: AER {mine['aer']} against {best['aer']} of {name} ({best['links']}); "
                f"{wall:.1f} times as fast, {cpu:.1f} times by CPU seconds"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["fr", "cs"])
    parser.add_argument("--pairs", nargs="+", type=int, default=[5000, 0])
    parser.add_argument(
        "--peers", nargs="*", default=[], choices=["eflomal", "eflomal, 4 letters", "fast_align", "thot"]
    )
    parser.add_argument("--shard-pairs", nargs="*", type=int, default=[])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "gold.json")
    options = parser.parse_args()
    aligners: dict[str, Callable[..., Found]] = {
        "vocabtransfer": ours,
        "vocabtransfer, fast": partial(ours, effort="fast"),
    }
    aligners |= {f"vocabtransfer, shards of {n}": partial(ours_in_shards, n) for n in options.shard_pairs}
    aligners |= {name: thot if name == "thot" else partial(peer, name) for name in options.peers}
    rows = []
    for language in options.languages:
        base = options.gold / f"en-{language}"
        sure, possible = read_gold(read(base.with_name(base.name + ".gold")))
        for pairs in options.pairs:
            sides = []
            for side in ("src", "tgt"):
                text = read(base.with_name(f"{base.name}.{side}"))
                lines = read(base.with_name(f"{base.name}.gold.{side}")) + (text[:pairs] if pairs else text)
                sides.append([line.split() for line in lines])
            for name, aligner in aligners.items():
                for method, (links, wall, cpu) in aligner(*sides, len(sure)).items():
                    row = {"corpus": f"en-{language}", "pairs": len(sides[0]), "aligner": name, "links": method}
                    row |= {
                        **score(links, sure, possible),
                        "cpu_seconds": round(cpu, 2),
                        "wall_seconds": round(wall, 2),
                        "pairs_per_second": round(len(sides[0]) / wall),
                    }
                    rows.append(row)
                    print("  ".join(str(value) for value in row.values()), flush=True)
    compare(rows)
    options.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
