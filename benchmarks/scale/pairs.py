"""Words of millions of pairs counted and the pairs filtered: pairs a second, memory, and whether cost grows as the work.

Pairs are generated from real ones: most have numbers put behind both sides, so that they differ; some are what crawls hold
(pairs that come again, text through a wrong encoding, sides left untranslated, a translation much too long). They lie in
shards of 100,000. Every measurement runs in a process of its own, watched from outside with its workers.

    python benchmarks/scale/pairs.py --pairs data/en-ru.tsv.xz --folder /some/disk --target russian
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from keeping import store
from watching import private, watch

from vocabtransfer.alignment.corpora import read_parallel
from vocabtransfer.files.text_files import write_lines

SHARD = 100_000
#: Engine, processes, and how many pairs: one process shows how cost grows, the others what they bring.
RUNS = (
    ("local", 1, 100_000),
    ("local", 1, 300_000),
    ("local", 2, 300_000),
    ("ray", 2, 300_000),
    ("local", 1, 1_000_000),
    ("local", 2, 1_000_000),
    ("ray", 2, 1_000_000),
    ("local", 2, 3_000_000),
    ("local", 2, 10_000_000),
)


def generated(real: list[tuple[str, str]], seed: int, count: int) -> Iterator[tuple[str, str]]:
    chance = random.Random(seed)
    for _ in range(count):
        kind = chance.random()
        source, target = real[int(chance.random() * len(real))]
        if kind > 0.05:
            number = f" {chance.random():.6f}"[3:]
            source, target = f"{source} {number[:3]} {number[3:]}", f"{target} {number[:3]} {number[3:]}"
        if kind > 0.98:
            target = source
        elif kind > 0.97:
            target = target.encode().decode("latin-1")
        elif kind > 0.96:
            target = " ".join([target] * 6)
        yield source, target


def make_shards(pairs: Path, folder: Path, count: int) -> None:
    real = [(" ".join(one.split()), " ".join(two.split())) for one, two in read_parallel(pairs)]
    for number in range(-(-count // SHARD)):
        path = folder / f"in-{number:05d}.tsv"
        if not path.exists():
            write_lines(path, (f"{source}\t{target}\n" for source, target in generated(real, number, SHARD)))


def work(kind: str, shards: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Do one measurement's work in this process; return what came out."""
    from vocabtransfer.alignment.filters import PairFilter
    from vocabtransfer.corpora.shards import count_corpus, filter_corpus
    from vocabtransfer.languages import find_language

    target, output = options.pop("target"), options.pop("output")
    if kind == "count":
        counts = count_corpus(shards, field="1", **options)
        return {"words": len(counts), "running_words": round(sum(counts.values()))}
    rules = PairFilter(find_language("en"), find_language(target))
    made = filter_corpus(shards, output, rules=rules, overwrite=True, **options)
    return {"kept": made.kept, "dropped": made.dropped}


def watched(command: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a command that prints JSON; return that, its time, and the peaks of it and of all processes it started."""
    peak = {"lead": 0, "worker": 0}
    cpu: dict[int, float] = {}

    def look(lead: psutil.Process) -> None:
        peak["lead"] = max(peak["lead"], private(lead))
        for one in (lead, *lead.children(recursive=True)):
            used = one.cpu_times()
            cpu[one.pid] = used.user + used.system
            if one.pid != lead.pid:
                peak["worker"] = max(peak["worker"], private(one))

    printed, seconds = watch(command, look, every=0.2)
    return printed, {
        "seconds": round(seconds, 1),
        "cpu_s": round(sum(cpu.values()), 1),
        "peak_private_mb": round(peak["lead"] / 1e6),
        "largest_worker_private_mb": round(peak["worker"] / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, help="real pairs")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--target", default="russian")
    parser.add_argument("--most", type=int, default=10_000_000, help="leave out runs with more pairs")
    parser.add_argument("--work", help="(inside) one measurement, as JSON")
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(**json.loads(options.work)), ensure_ascii=False))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    make_shards(options.pairs, options.folder, options.most)
    rows = []
    for engine, processes, size in RUNS:
        if size > options.most:
            continue
        for kind in ("count", "filter"):
            shards = [str(options.folder / f"in-{number:05d}.tsv") for number in range(size // SHARD)]
            output = str(options.folder / f"out-{engine}-{processes}")
            settings = {"engine": engine, "processes": processes, "target": options.target, "output": output}
            task = json.dumps({"kind": kind, "shards": shards, "options": settings})
            load = os.getloadavg()[0]
            made, cost = watched([sys.executable, __file__, "--folder", str(options.folder), "--work", task])
            row = {"work": kind, "pairs": size, "engine": engine, "processes": processes, **cost}
            row |= {"pairs_a_second": round(size / cost["seconds"]), "load_before": round(load, 1), **made}
            rows.append(row)
            print(json.dumps(row), flush=True)
            store("pairs.json", {"shard_pairs": SHARD, "source": options.pairs.name, "runs": rows})


if __name__ == "__main__":
    main()
