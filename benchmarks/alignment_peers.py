"""Align two text files with another word aligner: run by `alignment.py` in an environment that has it.

python alignment_peers.py PEER SOURCE TARGET FORWARD BACKWARD
"""

import sys
from pathlib import Path


def eflomal(source: Path, target: Path, forward: Path, backward: Path, prefix: int = 0) -> None:
    from eflomal import Aligner

    with source.open(encoding="utf-8") as left, target.open(encoding="utf-8") as right:
        aligner = Aligner(source_prefix_len=prefix, target_prefix_len=prefix)
        aligner.align(left, right, links_filename_fwd=str(forward), links_filename_rev=str(backward))


def eflomal_prefix(source: Path, target: Path, forward: Path, backward: Path) -> None:
    eflomal(source, target, forward, backward, prefix=4)


def fast_align(source: Path, target: Path, forward: Path, backward: Path) -> None:
    """The fast_align in systran-align, with its own symmetrisation in both files."""
    import systran_align

    left, right = (path.read_text(encoding="utf-8").splitlines() for path in (source, target))
    joined, probabilities = (
        forward.with_suffix(".joined"),
        [str(path.with_suffix(".p")) for path in (forward, backward)],
    )
    joined.write_text("".join(f"{s} ||| {t}\n" for s, t in zip(left, right, strict=True)), encoding="utf-8")
    systran_align.generate_alignment_probabilities(
        str(joined), *probabilities, favor_diagonal=True, optimize_tension=True, variational_bayes=True
    )
    aligner = systran_align.Aligner(*probabilities)
    found = aligner.align_batch([line.split() for line in left], [line.split() for line in right])
    text = "".join(" ".join(f"{i}-{j}" for i, j in result["alignments"]) + "\n" for result in found)
    for path in (forward, backward):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    peers = {"eflomal": eflomal, "eflomal, 4 letters": eflomal_prefix, "fast_align": fast_align}
    peers[sys.argv[1]](*map(Path, sys.argv[2:]))
