"""What an update costs when new rows are distilled alone, by the number of new rows, and when the whole model runs.

    python benchmarks/distillation/run.py --source GEMMA.gguf --corpora FOLDER

A vocabulary is extended by 1,000, 6,000 and 24,000 tokens on the target side of ``en-nl.tsv.xz``; rows start as the mean of
their pieces. Every way runs in a process of its own: CPU seconds of an update of 512 tokens (the median of some after a
first), CPU seconds in which the untouched model is listened to, for a thousand tokens, and the most memory that the
process held. *whole model* is the way of a model whose layers differ from its teacher's, which was the only way before: the
difference of a run of 16 and one of 4 updates, in which the teacher listens anew. ``times_as_fast`` compares an update
of it with one of rows alone and the listening that falls to that.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "leaderboard"))
from run import HELD_OUT, read_parts

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.surgery.transfer import transfer
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.training import AdaptRequest, Stage, adapt, adaptation
from vocabtransfer.training.request import new_rows_of
from vocabtransfer.training.row_distiller import RowDistiller
from vocabtransfer.training.row_stage import USES, RowMaterial

HERE = Path(__file__).parent
TOKENS, UPDATES = 512, 12
WHOLE_UPDATES = (4, 16)
RESULT = "FACTS "


def peak_gigabytes() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def rows_alone(model: Path, teacher: str, text: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Time updates of new rows alone, as a stage ``new`` makes them."""
    made, source = open_checkpoint(model), open_checkpoint(teacher)
    new_rows = new_rows_of(made)
    assert new_rows is not None
    distiller = RowDistiller.find(made, source, None, dtype, torch.device("cpu"))
    assert distiller is not None
    material = RowMaterial(distiller, new_rows)
    documents = text.read_text(encoding="utf-8").split("\n\n")
    snippets = material.snippets(documents, None, 0.0, TOKENS * 6)
    begun = time.process_time()
    body = load_causal_model(source.path, "cpu", dtype)
    loading = time.process_time() - begun
    begun = time.process_time()
    lessons = material.lessons(snippets, body)
    listening = time.process_time() - begun
    del body
    fit = material.fit(snippets, lessons, 0)
    times = []
    for number, texts in enumerate(fit.plan(TOKENS, UPDATES + 1)):
        begun = time.process_time()
        fit.update(number, texts, 1e-4)
        times.append(time.process_time() - begun)
    return {
        "new_rows": int(new_rows.sum()),
        "rows": len(material.rows),
        "layers": distiller.layer,
        "cpu_seconds_an_update": round(float(np.median(times[1:])), 3),
        "cpu_seconds_listening_a_thousand_tokens": round(1000 * listening / int(snippets.sizes().sum()), 2),
        "cpu_seconds_loading": round(loading, 1),
        "peak_gigabytes": peak_gigabytes(),
    }


def whole_model(model: Path, teacher: str, text: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Time updates of the whole model with `distill`: the difference of a long run and a short one."""
    times = []
    for updates in WHOLE_UPDATES:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(adaptation, "_distiller", return_value=None):
            begun = time.process_time()
            adapt(
                AdaptRequest(
                    model=str(model),
                    text=(text,),
                    output=Path(folder) / "out",
                    stages=(Stage("new", updates, False, 1e-4),),
                    objective="distill",
                    teacher=teacher,
                    block=128,
                    batch_tokens=TOKENS,
                    dtype="bf16" if dtype == torch.bfloat16 else "fp32",
                    cpu=True,
                )
            )
            times.append(time.process_time() - begun)
    return {
        "cpu_seconds_an_update": round((times[1] - times[0]) / (WHOLE_UPDATES[1] - WHOLE_UPDATES[0]), 3),
        "peak_gigabytes": peak_gigabytes(),
    }


def child(way: str, model: Path, teacher: str, text: Path, dtype: str) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--model", str(model), "--source", teacher, "--text", str(text)]
    command += ["--dtype", dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = next(line for line in done.stdout.splitlines() if line.startswith(RESULT))
    return dict(json.loads(found.removeprefix(RESULT)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--corpora", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 6_000, 24_000])
    parser.add_argument(
        "--whole", type=int, default=6_000, help="the size at which the whole model runs too; 0 for none"
    )
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"], help="of the products")
    parser.add_argument("--way", choices=["rows", "whole"], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--text", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        way = rows_alone if arguments.way == "rows" else whole_model
        dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
        print(RESULT + json.dumps(way(arguments.model, arguments.source, arguments.text, dtype)), flush=True)
        return
    source = open_checkpoint(Path(arguments.source) if Path(arguments.source).exists() else arguments.source)
    pairs, _, _ = read_parts(arguments.corpora / "en-nl.tsv.xz", HELD_OUT["nl"])
    lines = list(dict.fromkeys(target for _, target in pairs))
    facts: dict[str, Any] = {"source": source.name, "threads": torch.get_num_threads(), "rows_alone": []}
    (HERE / "results").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        chosen = lines[:: max(len(lines) // 6_000, 1)]
        documents = ("\n".join(chosen[i : i + 20]) for i in range(0, len(chosen), 20))
        text.write_text("\n\n".join(documents), encoding="utf-8")
        for size in arguments.sizes:
            tokenizer = extend_tokenizer(source.tokenizer, lines, new_tokens=size).tokenizer
            made = Path(folder) / str(size)
            transfer(source, tokenizer, method="pieces", calibrate=False, measure=False).save(made)
            facts["rows_alone"].append(child("rows", made, str(source.path), text, arguments.dtype))
            print(facts["rows_alone"][-1], flush=True)
            if size == arguments.whole:
                whole = child("whole", made, str(source.path), text, arguments.dtype)
                facts["whole_model"] = {"new_rows": size, **whole}
                alone = facts["rows_alone"][-1]
                listening = alone["cpu_seconds_listening_a_thousand_tokens"] * TOKENS / 1000 / USES
                cost = alone["cpu_seconds_an_update"] + listening
                facts["times_as_fast"] = round(whole["cpu_seconds_an_update"] / cost, 1)
                print(facts["whole_model"], facts["times_as_fast"], flush=True)
            name = f"{source.name.split('/')[-1]}{'' if arguments.dtype == 'bf16' else '-fp32'}.json"
            (HERE / "results" / name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
