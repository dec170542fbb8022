"""The authors' own packages on the inputs of a contest: their rows scored as ours, at their side ours on their vectors."""

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from scipy import sparse

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.initialization import VectorFiles
from vocabtransfer.leaderboard.contest import Contest, Row, load_rows, save_rows
from vocabtransfer.leaderboard.measuring import load_model, score_tables
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.transfer import transfer

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))  # the scripts that run the packages
TRANS_TOKENIZERS, ON_LINKS = "trans-tokenizers 0.1.4", "trans_tokenization on the peer's links"
FOCUS, WECHSEL, OURS = "deepfocus 1.0.1", "wechsel 0.0.4", "wechsel on the peer's vectors"


def add_trans_tokenizers(contest: Contest, results: Path, python: Path) -> None:
    """Let the published package make its tables from the same pairs and tokenizers, then ours from the package's links."""
    from trans_tokenizers_peer import LINKS

    if {TRANS_TOKENIZERS, ON_LINKS} <= _done(contest, results):
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = (f"{english}\t{target}\n".replace("\r", " ") for english, target in contest.pairs)
        (folder / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
        contest.tokenizer.save_pretrained(folder / "tokenizer")
        command = [python, BENCHMARKS / "trans_tokenizers_peer.py", "--source", contest.source.path]
        command += ["--tokenizer", folder / "tokenizer", "--parallel", folder / "pairs.tsv", "--output", folder / "out"]
        # A fixed hash seed: the package walks over sets, and its smoothing depends on their order.
        settings = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

        def theirs() -> torch.Tensor:
            subprocess.run([str(word) for word in command], check=True, env=os.environ | settings)
            return open_checkpoint(folder / "out").input_table()[: len(contest.tokenizer)].float().clone()

        def ours() -> torch.Tensor:
            if not (folder / "out" / LINKS).exists():
                theirs()
            counts = package_counts(contest, folder / "out" / LINKS)
            # The table of words only says that there is an alignment: the counts of tokens are the package's.
            with mock.patch("vocabtransfer.initialization.inputs.token_counts", lambda *_: counts.copy()):
                return _made(contest, "trans_tokenization")

        _add(contest, results, TRANS_TOKENIZERS, theirs)
        _add(contest, results, ON_LINKS, ours)


def package_counts(contest: Contest, links: Path) -> sparse.csr_array:
    """Return token-pair counts, float32 (target tokens, source tokens), of the package's links between words.

    As the package does: words linked less than 10 times are left out; half of the count of a pair goes to all pairs of
    its tokens, half along the diagonal.
    """
    old, new = contest.source.tokenizer.get_vocab(), contest.tokenizer.get_vocab()
    counts = Counter[tuple[int, int]]()
    for line in links.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        source, target, _, number = line.split("\t")
        count, sources, targets = int(float(number)), source.split("—"), target.split("—")
        if count < 10 or not set(sources) <= old.keys() or not set(targets) <= new.keys():
            continue
        if len(sources) == len(targets) == 1:
            counts[new[target], old[source]] += count
            continue
        half, common = max(1, count // 2), math.gcd(len(sources), len(targets))
        for s, t in itertools.product(sources, targets):
            counts[new[t], old[s]] += max(1, half // len(sources))
        step = len(sources) // common
        for s, t in zip(np.repeat(sources, len(targets) // common), np.repeat(targets, step), strict=True):
            counts[new[t], old[s]] += max(1, half // step)
    pairs = np.array(list(counts), np.int64).T
    shape = max(new.values()) + 1, max(old.values()) + 1
    return sparse.csr_array((np.fromiter(counts.values(), np.float32), (pairs[0], pairs[1])), shape=shape)


def add_vector_peers(contest: Contest, results: Path, python: Path) -> None:
    """Let FOCUS and WECHSEL make their tables; WECHSEL and ours read the same word vectors and dictionary."""
    import vector_peers

    if {FOCUS, WECHSEL, OURS} <= _done(contest, results):
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "table.npy", contest.source.input_table().float().numpy())
        sources = (source for source, _ in contest.pairs)
        arguments = contest.source.tokenizer, contest.tokenizer, contest.evidence.alignment, contest.text, sources
        vector_peers.write_inputs(folder, *arguments)

        def child(part: str, file: str) -> Callable[[], torch.Tensor]:
            def make() -> torch.Tensor:
                vector_peers.run_child(python, "peer", part, folder)
                return torch.from_numpy(np.load(folder / file)).float()

            return make

        def ours() -> torch.Tensor:
            return _made(
                contest, "wechsel", vectors=VectorFiles(folder / "source-words.bin", folder / "target-words.bin")
            )

        _add(contest, results, FOCUS, child("focus", "peer-focus-text.npy"))
        _add(contest, results, WECHSEL, child("wechsel", "peer-wechsel.npy"))
        _add(contest, results, OURS, ours)


def _made(contest: Contest, method: str, vectors: VectorFiles | None = None) -> torch.Tensor:
    """Return our rows of a method."""
    made = transfer(
        contest.source,
        contest.tokenizer,
        Evidence(alignment=contest.evidence.alignment, vectors=vectors or VectorFiles()),
        method=method,
    )
    table = made.table("input")
    assert table is not None, "every model has an input table"
    return table


def _done(contest: Contest, results: Path) -> set[str]:
    return {row.label for row in load_rows(results, contest)}


def _add(contest: Contest, results: Path, label: str, make: Callable[[], torch.Tensor]) -> None:
    if label in _done(contest, results):
        return
    started = time.perf_counter()
    table = make()
    seconds = time.perf_counter() - started
    scores = score_tables(contest, load_model(contest.source, contest.precision), table).scores
    print(label, json.dumps(scores), flush=True)
    save_rows(results, contest, [*load_rows(results, contest), Row(label, 0, scores, round(seconds, 1), 0.0)])
