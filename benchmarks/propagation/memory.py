"""What propagating an adapted vocabulary costs: seconds, peak memory beside the tables, and how near to plain products.

    python benchmarks/propagation/memory.py                                       # Llama 3 8B's shapes, 40,000 new tokens
    python benchmarks/propagation/memory.py --rows 32000 --hidden 1024 --new 8000   # smaller

The three models have random bfloat16 tables of the real size and a body of one small layer. Everything runs in one
process of its own, whose peak resident memory is compared with the size of the tables of one model (input and output)
and with what the process needs before it opens a model. Operations counted are those of the formulas: n d^2 for the
Gram matrix, 2 n d^2 for the other side and 9 d^3 for the eigenvectors of the fit, 2 v d^2 for the new rows.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.checkpoint.tensors import raw_bytes
from vocabtransfer.propagation import METHODS, propagate
from vocabtransfer.tokenization.save import save_tokenizer

GB = 1e9
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPARE = 8
MARKERS = ["<|im_start|>", "<|im_end|>"]
PLAIN_SIZE = 2048


def base_words() -> Iterator[str]:
    """Three letters inside a word and at its start, then four: the first letters of every word become tokens."""
    for count in (2, 3, 4):
        for letters in product(LETTERS, repeat=count):
            yield "".join(letters)
            yield " " + "".join(letters)


def adapted_words() -> Iterator[str]:
    """Random words of six letters, which the base tokenizer spells in two or three tokens."""
    generator = random.Random(0)
    while True:
        yield " " + "".join(generator.choices(LETTERS, k=6))


def tokenizer_of(words: Iterator[str], size: int) -> PreTrainedTokenizerFast:
    """A toy tokenizer of exactly ``size`` tokens; spare special tokens fill it up."""
    room = size - len(toy_tokenizer()) - SPARE
    wanted: list[str] = []
    seen = set(" " + LETTERS)
    for word in words:
        new = {word[:cut] for cut in range(2, len(word) + 1)} - seen
        if len(new) > room:
            break
        room -= len(new)
        seen |= new
        wanted.append(word)
    tokenizer = toy_tokenizer(wanted)
    spare = [f"<|spare_{i}|>" for i in range(size - len(tokenizer))]
    tokenizer.add_special_tokens({"additional_special_tokens": spare})
    assert len(tokenizer) == size, (len(tokenizer), size)
    return tokenizer


def make_models(home: Path, rows: int, hidden: int, new: int, tied: bool) -> None:
    heads = 8
    config: dict[str, Any] = {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden},
        **{"intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": heads, "num_key_value_heads": 1},
        **{"max_position_embeddings": 64, "tie_word_embeddings": tied, "dtype": "bfloat16"},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    }
    base = tokenizer_of(base_words(), rows)
    for name, size in (("base", rows), ("instruct", rows + len(MARKERS)), ("adapted", new)):
        write_hollow_checkpoint(home / name, {**config, "vocab_size": size}, shard_bytes=10**12)
    save_tokenizer(base, home / "base")
    save_tokenizer(tokenizer_of(adapted_words(), new), home / "adapted")
    base.add_special_tokens({"additional_special_tokens": MARKERS}, replace_extra_special_tokens=False)
    save_tokenizer(base, home / "instruct")
    for seed, name in enumerate(("base", "instruct", "adapted")):
        fill_tables(open_checkpoint(home / name), seed)


def fill_tables(model: Checkpoint, seed: int) -> None:
    """Write random rows into tables that are holes so far; the instruct model's are the base model's and some noise."""
    for number, tensor in enumerate(model.layout.tensors):
        info = model.tensors[tensor.name]
        with info.file.open("rb+") as stream:
            stream.seek(info.begin)
            for start in range(0, info.shape[0], 4096):
                shape = (min(4096, info.shape[0] - start), info.shape[1])
                block = normal([number, start], shape)
                if seed:
                    block = 0.2 * normal([number, start, seed], shape) + (block if model.name == "instruct" else 0)
                stream.write(raw_bytes((0.02 * torch.from_numpy(block)).bfloat16()))


def normal(seed: list[int], shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def plain_rate(dtype: type) -> float:
    """Operations a second of a plain matrix product, the best of three."""
    x = np.random.default_rng(0).standard_normal((PLAIN_SIZE, PLAIN_SIZE)).astype(dtype)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - started)
    return 2 * PLAIN_SIZE**3 / best


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_one(arguments: argparse.Namespace) -> None:
    home = Path(arguments.folder)
    rates = {"float64": plain_rate(np.float64), "float32": plain_rate(np.float32)}
    before = peak()
    started = time.perf_counter()
    models = [open_checkpoint(home / name) for name in ("base", "adapted", "instruct")]
    result = propagate(*models, method=arguments.method)
    fitted = time.perf_counter()
    report = result.save(home / f"out-{arguments.method}")
    seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hidden = models[0].layout.hidden
    tables = [facts for facts in result.facts["tables"].values() if "rows_fitted" in facts]
    fit = sum(3 * facts["rows_fitted"] * hidden**2 + 9 * hidden**3 for facts in tables)
    apply = 2 * result.facts["vocabulary"] * hidden**2 * len(tables)
    sizes = sum(models[2].tensors[tensor.name].nbytes for tensor in models[2].layout.tensors)
    print(
        json.dumps(
            {
                **{
                    "seconds": seconds,
                    "fit": fitted - started,
                    "save": report.seconds,
                    "start": before,
                    "peak": peak(),
                },
                **{"cpu": usage.ru_utime + usage.ru_stime, "tables": sizes, "fit_operations": fit},
                **{"apply_operations": apply, "rates": rates},
            }
        )
    )


def compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        make_models(Path(scratch), arguments.rows, arguments.hidden, arguments.new, arguments.tied)
        print(f"base {arguments.rows:,} x {arguments.hidden:,}, adapted {arguments.new:,}, bfloat16\n")
        print(
            "| method | seconds (fit, write) | peak GB (start) | of the tables | GFLOP/s fit, rows | plain f64, f32 |"
        )
        print("|---|---|---|---|---|---|")
        for method in arguments.methods:
            command = [sys.executable, __file__, "--method", method, "--folder", scratch]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            made = json.loads(done.stdout.splitlines()[-1])
            rate = made["fit_operations"] / made["fit"] / 1e9
            rows = made["apply_operations"] / made["save"] / 1e9
            print(
                f"| {method} | {made['seconds']:.1f} ({made['fit']:.1f}, {made['save']:.1f}) | {made['peak'] / GB:.2f} "
                f"({made['start'] / GB:.2f}) | {made['peak'] / made['tables']:.2f} | {rate:.0f}, {rows:.0f} | "
                f"{made['rates']['float64'] / 1e9:.0f}, {made['rates']['float32'] / 1e9:.0f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128_256)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--new", type=int, default=40_000)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--scratch", default=None, help="folder on the disk to measure")
    for hidden in ("--method", "--folder"):
        parser.add_argument(hidden, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        run_one(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
