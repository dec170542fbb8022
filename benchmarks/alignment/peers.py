"""Align two text files with another word aligner: run by `run.py` in an environment that has it.

python peers.py PEER SOURCE TARGET FORWARD BACKWARD

Prints the wall and CPU seconds that it took from files to files, without imports.
"""

import importlib
import resource
import sys
import time
from pathlib import Path
from typing import Any


def eflomal(package: Any, source: Path, target: Path, forward: Path, backward: Path, prefix: int = 0) -> None:
    with source.open(encoding="utf-8") as left, target.open(encoding="utf-8") as right:
        aligner = package.Aligner(source_prefix_len=prefix, target_prefix_len=prefix)
        aligner.align(left, right, links_filename_fwd=str(forward), links_filename_rev=str(backward))


def eflomal_prefix(package: Any, *paths: Path) -> None:
    eflomal(package, *paths, prefix=4)


def fast_align(package: Any, source: Path, target: Path, forward: Path, backward: Path) -> None:
    """The fast_align in systran-align, with its own symmetrisation in both files."""
    left, right = (path.read_text(encoding="utf-8").splitlines() for path in (source, target))
    joined, probabilities = (
        forward.with_suffix(".joined"),
        [str(path.with_suffix(".p")) for path in (forward, backward)],
    )
    joined.write_text("".join(f"{s} ||| {t}\n" for s, t in zip(left, right, strict=True)), encoding="utf-8")
    package.generate_alignment_probabilities(
        str(joined), *probabilities, favor_diagonal=True, optimize_tension=True, variational_bayes=True
    )
    aligner = package.Aligner(*probabilities)
    found = aligner.align_batch([line.split() for line in left], [line.split() for line in right])
    text = "".join(" ".join(f"{i}-{j}" for i, j in result["alignments"]) + "\n" for result in found)
    for path in (forward, backward):
        path.write_text(text, encoding="utf-8")


PEERS = {
    "eflomal": ("eflomal", eflomal),
    "eflomal, 4 letters": ("eflomal", eflomal_prefix),
    "fast_align": ("systran_align", fast_align),
}


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    name, run = PEERS[sys.argv[1]]
    module = importlib.import_module(name)
    began, used = time.perf_counter(), cpu_seconds()
    run(module, *map(Path, sys.argv[2:]))
    print(time.perf_counter() - began, cpu_seconds() - used)
