"""What writing a checkpoint with a new vocabulary costs: time, memory, bytes; beside loading and saving it whole.

    python benchmarks/rewrite.py                  # about 4.3 GB in shards, as in a 5-layer Llama 3 8B
    python benchmarks/rewrite.py --layers 2       # smaller
    python benchmarks/rewrite.py --plan-only      # Llama 3 70B: planned only, on sparse files

Each way runs in a process of its own on the same files, so that its peak memory is its own. "Whole model" loads it with
transformers, puts the new tables in, and saves it: the usual way. The least that must be written is the new size of the
shards that hold a table, since a file cannot be linked in part.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import Checkpoint, VocabTensor, open_checkpoint, plan_checkpoint, write_checkpoint
from vocabtransfer.checkpoint.synthetic import LLAMA3_70B, toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer

GB = 1e9


def toy_words(count: int) -> list[str]:
    """Words whose beginnings make a vocabulary of about ``count`` tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"{a}{b}{c}{d}" for a in letters for b in letters for c in letters for d in letters][:count]


def permutation(source: Checkpoint, count: int) -> torch.Tensor:
    return torch.randperm(source.layout.rows, generator=torch.Generator().manual_seed(0))[:count]


def rewrite(folder: Path, target: Path, link: str) -> dict[str, Any]:
    source = open_checkpoint(folder)
    tokenizer = load_tokenizer(folder / "new")
    ids = permutation(source, len(tokenizer))

    def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        return source.read(tensor.name)[ids[start:stop]]

    report = write_checkpoint(source, target, tokenizer=tokenizer, rows=rows, link=link)  # type: ignore[arg-type]
    return {"written": report.bytes_written, "linked": report.bytes_linked}


def load_and_save(folder: Path, target: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    source = open_checkpoint(folder)
    tokenizer = load_tokenizer(folder / "new")
    ids = permutation(source, len(tokenizer))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    old = [model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(old[0][ids])
    model.get_output_embeddings().weight.data.copy_(old[1][ids])
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return {"written": sum(file.stat().st_size for file in target.iterdir()), "linked": 0}


def run_one(arguments: argparse.Namespace) -> None:
    folder, target = Path(arguments.folder), Path(arguments.target)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if arguments.way == "whole":
        result = load_and_save(folder, target)
    else:
        result = rewrite(folder, target, arguments.way)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result |= {"seconds": time.perf_counter() - started, "cpu": usage.ru_utime + usage.ru_stime}
    result |= {"peak": usage.ru_maxrss * 1024, "start": before * 1024}
    print(json.dumps(result))


def in_own_process(way: str, folder: Path, target: Path) -> dict[str, Any]:
    os.sync()
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--target", str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        home = Path(scratch)
        config = {**LLAMA3_70B, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
        config["num_hidden_layers"] = arguments.layers
        folder = write_hollow_checkpoint(home / "source", config, shard_bytes=int(arguments.shard_gb * GB), seed=1)
        save_tokenizer(toy_tokenizer(["hello"]), folder)
        tokenizer = toy_tokenizer(toy_words(arguments.vocabulary), seed=2)
        save_tokenizer(tokenizer, folder / "new")
        source = open_checkpoint(folder)
        plan = plan_checkpoint(source, home / "target", vocabulary_size=len(tokenizer))
        least = sum(file.bytes for file in plan.files if file.action == "rewrite")
        size = sum(info.nbytes for info in source.tensors.values())
        print(f"checkpoint {size / GB:.2f} GB in {len(source.shards)} shards, new vocabulary {len(tokenizer)}")
        print(f"new tables {plan.bytes_least / GB:.2f} GB, in shards of {least / GB:.2f} GB: the least to write\n")
        print("| way | seconds | CPU seconds | peak memory GB | written GB | of the least |")
        print("|---|---|---|---|---|---|")
        for way, name in (("hard", "hard links"), ("copy", "copies"), ("whole", "whole model")):
            made = in_own_process(way, folder, home / f"target-{way}")
            print(
                f"| {name} | {made['seconds']:.1f} | {made['cpu']:.1f} | {made['peak'] / GB:.2f} (starts at "
                f"{made['start'] / GB:.2f}) | {made['written'] / GB:.2f} | {made['written'] / least:.2f} |",
                flush=True,
            )


def plan_70b(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        started = time.perf_counter()
        folder = write_hollow_checkpoint(Path(scratch) / "source", LLAMA3_70B, shard_bytes=5 * 10**9)
        made = time.perf_counter()
        source = open_checkpoint(folder)
        plan = plan_checkpoint(source, Path(scratch) / "target", vocabulary_size=32_000)
        actions = [file.action for file in plan.files]
        print(f"Llama 3 70B, {len(actions)} shards: made in {made - started:.1f} s,")
        print(f"opened and planned in {time.perf_counter() - made:.2f} s: {actions.count('rewrite')} rewritten,")
        print(f"{plan.bytes_written / GB:.2f} GB written ({plan.bytes_least / GB:.2f} GB of it new tables),")
        print(f"{plan.bytes_linked / GB:.2f} GB linked; peak memory {_peak() / GB:.2f} GB")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=30_000)
    parser.add_argument("--shard-gb", type=float, default=1.2)
    parser.add_argument("--scratch", default=None, help="folder on the disk to measure")
    parser.add_argument("--plan-only", action="store_true")
    for hidden in ("--way", "--folder", "--target"):
        parser.add_argument(hidden, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run_one(arguments)
        return
    plan_70b(arguments)
    if not arguments.plan_only:
        compare(arguments)


if __name__ == "__main__":
    main()
