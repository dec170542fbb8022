"""The streamed runner beside transformers on real models that fit: the same bits, and how much time.

Both run the same texts in float32 in one process, in turns; medians are compared. Streamed is measured twice: with room
for all layers (each is read once and stays) and with room for none (each is read again for every pass).

    python benchmarks/scale/ratio.py --source smollm2 --source /some/gemma-3-270m-q4_k_m.gguf
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from keeping import store
from transformers import AutoConfig

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.model_class import made_from_config
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.streamed import BATCHES_A_LAYER, open_streamed, run_together, waves

KINDS = ("transformers", "streamed, all layers stay", "streamed, no layer stays")


def streamed(checkpoint: Checkpoint, keep_bytes: int) -> Any:
    config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
    return open_streamed(
        checkpoint,
        lambda: made_from_config(checkpoint.config, config, dtype=torch.float32),
        keep_bytes=keep_bytes,
    )


def scored(model: Any, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the logits of the last places of all batches, as `evaluate` runs them: in waves."""
    found: list[torch.Tensor] = []
    for wave in waves(batches, model):
        found += run_together(model, [partial(last_logits, model, ids) for ids in wave])
    return found


@torch.no_grad()
def last_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False, logits_to_keep=8).logits


@torch.no_grad()
def generated(model: Any, prompt: torch.Tensor, count: int) -> torch.Tensor:
    return model.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            results[name] = call()
            times[name].append(time.perf_counter() - begun)
    return times, results


def measure(source: str, options: argparse.Namespace) -> dict[str, Any]:
    checkpoint = open_checkpoint(Path(source) if Path(source).exists() else source)
    models = dict(
        zip(
            KINDS,
            (load_causal_model(checkpoint.path), streamed(checkpoint, 1 << 60), streamed(checkpoint, 0)),
            strict=True,
        )
    )
    torch.manual_seed(1)
    rows = len(checkpoint.vocabulary)
    batches = [torch.randint(10, rows, (options.rows, options.length)) for _ in range(options.batches)]
    for model in models.values():  # layers that stay are read, kernels are chosen
        scored(model, batches[:1])
    passes, logits = in_turns({name: partial(scored, model, batches) for name, model in models.items()}, options.rounds)
    tokens, texts = in_turns(
        {name: partial(generated, model, batches[0][:1, :16], options.generate) for name, model in models.items()},
        options.rounds,
    )
    whole = KINDS[0]
    row: dict[str, Any] = {"model": checkpoint.name, "parameters": checkpoint.parameters, "dtype": "float32"}
    for name in KINDS:
        seconds, each = statistics.median(passes[name]), statistics.median(tokens[name])
        row[name] = {
            "pass_s": round(seconds, 2),
            "all_passes_s": [round(second, 2) for second in passes[name]],
            "against_transformers": round(seconds / statistics.median(passes[whole]), 3),
            "generate_s": round(each, 2),
            "generate_against_transformers": round(each / statistics.median(tokens[whole]), 3),
            "same_bits": all(map(torch.equal, logits[whole], logits[name])) and torch.equal(texts[whole], texts[name]),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--batches", type=int, default=BATCHES_A_LAYER)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--generate", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = [measure(source, options) for source in options.source]
    facts = {name: getattr(options, name) for name in ("batches", "rows", "length", "generate", "rounds")}
    store("ratio.json", {**facts, "threads": torch.get_num_threads(), "load": os.getloadavg()[0], "models": rows})


if __name__ == "__main__":
    main()
