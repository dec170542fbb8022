"""Memory of every stage against table size: three vocabulary sizes by three hidden sizes, and the lines through them.

For each size a checkpoint of two layers is made (bfloat16, separate tables of V rows) and a target vocabulary as large that
shares half of its tokens. Each size has a process of its own, in which the stages run one after the other; what one freed is
given back to the system before the next. Counted is the largest private memory above what a stage began with. Pages of
mapped files are not private: the system takes them back when it wants to.

Least squares give ``peak = a + b V + c V d + e d^2`` for each stage. ``b`` is what strings and maps of a vocabulary take,
``c`` is bytes for each number of a table: 4 would be one copy in float32, 2 one in bfloat16. ``e`` is what grows with the
layers of the body, of which these models have two with 10 d^2 numbers each, and with square maps of width d.

    python benchmarks/scale/memory.py --folder /some/disk
    python benchmarks/scale/memory.py --folder /some/disk --lines   # the lines again, through what was measured before
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from keeping import RESULTS, store

from vocabtransfer import Evidence, open_checkpoint, propagate, transfer
from vocabtransfer.alignment.table import WordTable
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.proof import prove
from vocabtransfer.surgery.transfer import TransferResult, calibrated
from vocabtransfer.tokenization.save import save_tokenizer

VOCABULARIES, HIDDEN = (16_000, 32_000, 64_000), (512, 1024, 2048)
METHODS = ("pieces", "mean", "trans_tokenization", "auto", "hewitt")
#: What a slope says, by its least bytes a number of the table.
MEANINGS = (
    *((7.5, "both tables in float32: the whole model runs"), (3.5, "a table in float32"), (1.5, "a table as stored")),
    *((0.7, "part of a table"), (0.0, "no table")),
)


def made_words(count: int, seed: int, known: list[str] = []) -> list[str]:  # noqa: B006
    """Return so many different words whose beginnings give about one token each."""
    chance = random.Random(seed)
    words = dict.fromkeys(known)
    while len(words) < count:
        words["".join(chance.choice("abcdefghijklmnoprstuvz") for _ in range(4))] = None
    return list(words)


def made_source(folder: Path, vocabulary: int, hidden: int) -> tuple[Path, list[str]]:
    words = made_words(int(vocabulary * 0.92), 1)
    tokenizer = toy_tokenizer(words)
    path = folder / f"source-{vocabulary}-{hidden}"
    if path.exists():
        shutil.rmtree(path)
    config = {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(tokenizer)},
        **{"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 8},
        **{"max_position_embeddings": 512, "tie_word_embeddings": False, "dtype": "bfloat16"},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    }
    write_hollow_checkpoint(path, config, shard_bytes=10**10, seed=1)
    save_tokenizer(tokenizer, path)
    return path, words


def private() -> int:
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def peak_of(stage: Callable[[], Any]) -> tuple[int, float]:
    """Run a stage; return by how much the private memory of this process rose at most, and the seconds it took."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    start, most, running = private(), 0, True

    def watch() -> None:
        nonlocal most
        while running:
            most = max(most, private())
            time.sleep(0.003)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.perf_counter()
    stage()
    seconds = time.perf_counter() - begun
    running = False
    watcher.join()
    return max(most - start, 0), seconds


def stages(folder: Path, vocabulary: int, hidden: int) -> dict[str, Callable[[], Any]]:
    """Return the stages of one size; those that need what an earlier one wrote stand behind it."""
    path, words = made_source(folder, vocabulary, hidden)
    ours = made_words(len(words), 2, words[: len(words) // 2])
    target = toy_tokenizer(ours, seed=3)
    pairs = (np.arange(len(words)), np.arange(len(words)), np.full(len(words), 3.0))
    totals = np.full(len(words), 3.0, np.float32)
    table = WordTable.from_pairs(words, ours, pairs, totals, totals, {"pairs": 3 * len(words)})
    counts = dict.fromkeys(ours, 3.0)
    evidence = Evidence(table, counts)
    written = folder / f"written-{vocabulary}-{hidden}"

    def opened() -> Checkpoint:
        source = open_checkpoint(path)
        source.vocabulary, source.trained_rows()
        return source

    source = opened()

    def made(method: str, calibrate: bool = False) -> TransferResult:
        return transfer(source, target, evidence, method=method, calibrate=calibrate, measure=False)

    plain = made("pieces")
    carried = folder / f"propagated-{vocabulary}-{hidden}"

    def carry() -> None:
        propagate(source, open_checkpoint(written), source).save(carried, overwrite=True)

    return {
        "reading": opened,
        **{f"map, {method}": lambda method=method: made(method) for method in METHODS},
        "calibration": lambda: calibrated(plain, 0),
        "rewriting": lambda: plain.save(written, overwrite=True),
        "proof": lambda: prove(written, counts, find_language("english")),
        "propagation": carry,
    }


def line(rows: list[dict[str, Any]], stage: str) -> dict[str, Any]:
    """Return the least-squares line of a stage, with the share of the spread that it explains."""
    own = [row for row in rows if row["stage"] == stage]
    sizes = np.array([[1.0, row["V"], row["V"] * row["d"], row["d"] ** 2] for row in own])
    peaks = np.array([row["peak_mb"] * 1e6 for row in own])
    scale = sizes.max(axis=0)
    found = np.linalg.lstsq(sizes / scale, peaks, rcond=None)[0] / scale
    left = peaks - sizes @ found
    spread = float(((peaks - peaks.mean()) ** 2).sum())
    slope = float(found[2])
    return {
        "stage": stage,
        "fixed_mb": round(found[0] / 1e6, 1),
        "bytes_a_token": round(float(found[1])),
        "bytes_a_number": round(slope, 2),
        "bytes_of_d_squared": round(float(found[3])),
        "says": next(said for least, said in MEANINGS if slope >= least or least == 0.0),
        "explained": round(1 - float((left**2).sum()) / spread, 3) if spread else 1.0,
        "largest_residual_mb": round(float(np.abs(left).max()) / 1e6, 1),
    }


def keep(rows: list[dict[str, Any]]) -> None:
    lines = [line(rows, stage) for stage in dict.fromkeys(row["stage"] for row in rows)]
    store("memory.json", {"lines": lines, "runs": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES)
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN)
    parser.add_argument("--lines", action="store_true", help="draw the lines again through the runs that are kept")
    parser.add_argument("--one", action="store_true", help="(inside) one size in this process")
    options = parser.parse_args()
    if options.lines:
        keep(json.loads((RESULTS / "memory.json").read_text())["runs"])
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows: list[dict[str, Any]] = []
    if options.one:
        vocabulary, hidden = options.vocabularies[0], options.hidden[0]
        for stage, run in stages(options.folder, vocabulary, hidden).items():
            peak, seconds = peak_of(run)
            rows.append({"stage": stage, "V": vocabulary, "d": hidden, "peak_mb": round(peak / 1e6, 1)})
            print(f"{stage} V {vocabulary:,} d {hidden:,}: {peak / 1e6:.1f} MB, {seconds:.1f} s", file=sys.stderr)
        print(json.dumps(rows))
        return
    for vocabulary, hidden in itertools.product(options.vocabularies, options.hidden):
        command = [sys.executable, __file__, "--folder", options.folder, "--one"]
        command += ["--vocabularies", vocabulary, "--hidden", hidden]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
        rows += json.loads(done.stdout.splitlines()[-1])
        for made in options.folder.iterdir():
            shutil.rmtree(made)
    keep(rows)


if __name__ == "__main__":
    main()
