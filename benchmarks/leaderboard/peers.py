"""The authors' own packages on the inputs of a contest: their rows scored as ours, at their side ours on their vectors."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.initialization import VectorFiles
from vocabtransfer.leaderboard import Contest, Row, load_model, load_rows, save_rows, score_tables
from vocabtransfer.surgery import transfer

BENCHMARKS = Path(__file__).resolve().parents[1]
TRANS_TOKENIZERS = "trans-tokenizers 0.1.4"
FOCUS, WECHSEL, OURS = "deepfocus 1.0.1", "wechsel 0.0.4", "wechsel on the peer's vectors"


def add_trans_tokenizers(contest: Contest, results: Path, python: Path) -> None:
    """Let the published package make its tables from the same pairs and tokenizers."""

    def make(folder: Path) -> torch.Tensor:
        lines = (f"{english}\t{target}\n".replace("\r", " ") for english, target in contest.pairs)
        (folder / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
        contest.tokenizer.save_pretrained(folder / "tokenizer")
        command = [python, BENCHMARKS / "trans_tokenizers_peer.py", "--source", contest.source.path]
        command += ["--tokenizer", folder / "tokenizer", "--parallel", folder / "pairs.tsv", "--output", folder / "out"]
        # A fixed hash seed: the package walks over sets, and its smoothing depends on their order.
        settings = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        subprocess.run([str(word) for word in command], check=True, env=os.environ | settings)
        return open_checkpoint(folder / "out").input_table()[: len(contest.tokenizer)].float().clone()

    _add(contest, results, TRANS_TOKENIZERS, make)


def add_vector_peers(contest: Contest, results: Path, python: Path) -> None:
    """Let FOCUS and WECHSEL make their tables; WECHSEL and ours read the same word vectors and dictionary."""
    sys.path.insert(0, str(BENCHMARKS))
    import vector_peers

    done = {row.label for row in load_rows(results, contest)}
    if {FOCUS, WECHSEL, OURS} <= done:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "table.npy", contest.source.input_table().float().numpy())
        sources = (source for source, _ in contest.pairs)
        arguments = contest.source.tokenizer, contest.tokenizer, contest.table, contest.text, sources
        vector_peers.write_inputs(folder, *arguments)

        def child(part: str, file: str) -> Callable[[Path], torch.Tensor]:
            def make(_: Path) -> torch.Tensor:
                vector_peers.run_child(python, "peer", part, folder)
                return torch.from_numpy(np.load(folder / file)).float()

            return make

        def ours(_: Path) -> torch.Tensor:
            files = VectorFiles(folder / "source-words.bin", folder / "target-words.bin")
            made = transfer(contest.source, contest.tokenizer, method="wechsel", alignment=contest.table, vectors=files)
            table = made.table("input")
            assert table is not None, "every model has an input table"
            return table

        _add(contest, results, FOCUS, child("focus", "peer-focus-text.npy"))
        _add(contest, results, WECHSEL, child("wechsel", "peer-wechsel.npy"))
        _add(contest, results, OURS, ours)


def _add(contest: Contest, results: Path, label: str, make: Callable[[Path], torch.Tensor]) -> None:
    rows = load_rows(results, contest)
    if any(row.label == label for row in rows):
        return
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        table = make(Path(scratch))
        seconds = time.perf_counter() - started
    scores = score_tables(contest, load_model(contest.source, contest.precision), table)
    print(label, json.dumps(scores), flush=True)
    save_rows(results, contest, [*load_rows(results, contest), Row(label, 0, scores, round(seconds, 1), 0.0)])
