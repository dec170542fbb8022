"""Objectives compared: next-token loss, distillation, chunk likelihoods and a learned map, from one start and text.

    python benchmarks/training/objectives.py --corpus en-nl.tsv.xz --language nl --work /tmp/objectives

The model starts with the tables of one initialisation (mean of pieces, unless asked for another); the teacher is the
model before the transfer. Text, split and seed are those of ``curves.py``, and next-token loss (``clm``) is the baseline
that the others are compared with. Rates are those of ``--stage``, but 3e-4 for the learned map. An interrupted run goes on
where it stopped.
"""

import argparse
import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import vocabtransfer as vt
from vocabtransfer.progress import show_progress

HERE = Path(__file__).parent
BASELINE = "clm"
# A step of a weight moves a whole row: at 1e-2, 20 updates of Tatar took the model from 2.665 to 3.153 bits per byte.
RATES = {"learned_map": "3e-4"}


def curves() -> Any:
    """The script next door, which makes the checkpoint and the text."""
    spec = importlib.util.spec_from_file_location("curves", HERE / "curves.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(arguments: argparse.Namespace, model: Path, objective: str) -> dict[str, Any]:
    """Adapt the checkpoint with one objective; return bits per byte by update, and CPU seconds."""
    output = arguments.work / f"{model.name}-{objective}"
    stage = arguments.stage.rsplit(":", 1)[0] + f":{RATES[objective]}" if objective in RATES else arguments.stage
    started = time.process_time()
    result = vt.adapt(
        vt.AdaptRequest(
            str(model),
            (arguments.work / "train.txt",),
            output,
            (vt.Stage.parse(stage),),
            held_out=(arguments.work / "held-out.txt",),
            held_out_bytes=arguments.bytes,
            evaluate_every=arguments.eval_every,
            save_every=arguments.eval_every,
            block=arguments.block,
            batch_tokens=arguments.batch_tokens,
            objective=objective,
            teacher=None if objective == BASELINE else arguments.source,
            seed=arguments.seed,
            resume=True,
        )
    )
    shutil.rmtree(output)
    points = result.facts["curve"]
    return {
        "updates": [point["update"] for point in points],
        "bits_per_byte": [round(point["bits_per_byte"], 4) for point in points],
        "loss": [None if point["loss"] is None else round(point["loss"], 4) for point in points],
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def comparison(runs: dict[str, Any]) -> dict[str, Any]:
    """How many bits per byte each objective took away, and how many more than next-token loss did."""
    gains = {name: run["bits_per_byte"][0] - run["bits_per_byte"][-1] for name, run in runs.items()}
    return {
        name: {"gain": round(gain, 4), "more_than_next_token": round(gain - gains[BASELINE], 4)}
        for name, gain in gains.items()
        if BASELINE in gains
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--language", default="nl")
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--method", default="pieces", help="the initialisation")
    parser.add_argument("--objectives", nargs="+", default=[BASELINE, "distill", "alm", "learned_map"])
    parser.add_argument("--vocab-size", type=int, default=4_000)
    parser.add_argument("--stage", default="new:30:1e-3")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=128)
    parser.add_argument("--eval-every", type=int, default=30)
    parser.add_argument("--bytes", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, may be removed afterwards")
    arguments = parser.parse_args()
    results = HERE / "results" / f"objectives-{arguments.language}.json"
    facts = {name: value for name, value in vars(arguments).items() if name not in ("corpus", "work", "objectives")}
    facts |= {"corpus": arguments.corpus.name, "runs": {}}
    if results.exists():
        found = json.loads(results.read_text(encoding="utf-8"))
        if {**found, "runs": {}, "comparison": None} != {**facts, "comparison": None}:
            sys.exit(f"{results} holds runs of other settings: move it away.")
        facts["runs"] = found["runs"]
    arguments.methods, arguments.every, arguments.apart = [arguments.method], 1, 0
    with show_progress(sys.stderr.isatty()):
        (model,) = curves().prepare(arguments).values()
        for objective in arguments.objectives:
            if objective not in facts["runs"]:
                facts["runs"][objective] = train(arguments, model, objective)
            facts["comparison"] = comparison(facts["runs"])
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts["comparison"], indent=1))


if __name__ == "__main__":
    main()
