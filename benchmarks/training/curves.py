"""Learning curves: how many updates the same model needs from one initialisation and from another.

    python benchmarks/training/curves.py --corpus en-nl.tsv.xz --language nl --work /tmp/curves

The corpus holds lines (part, English, target), as `vocabtransfer.corpora.parallel` makes them. Tokenizer, alignment,
frequencies and the text that is trained on come from parts that are not held out; bits per byte are measured on the
held-out parts (those of the leaderboard). Every initialisation gets the same text in the same order, stages and seed.
An interrupted run goes on where it stopped: finished curves are in ``results/``, the rest is resumed by `adapt`.
"""

import argparse
import importlib.util
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import vocabtransfer as vt
from vocabtransfer.leaderboard.contest import Entry
from vocabtransfer.progress import show_progress

HERE = Path(__file__).parent


def leaderboard() -> Any:
    """The leaderboard's script, whose split of the corpora this is."""
    folder = HERE.parent / "leaderboard"
    sys.path.append(str(folder))  # it imports what lies beside it
    spec = importlib.util.spec_from_file_location("leaderboard_run", folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_documents(path: Path, lines: list[str], characters: int = 1_500) -> None:
    """Write neighbouring lines as documents of some 1,500 characters."""
    parts, length = [], 0
    for line in lines:
        parts.append(line)
        length += len(line)
        if length >= characters:
            parts.append("")
            length = 0
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def prepare(arguments: argparse.Namespace) -> dict[str, Path]:
    """Make what is not there yet: training and held-out text, and a checkpoint for every initialisation."""
    split = leaderboard()
    paths = {label: arguments.work / label for label in arguments.methods}
    text, held_out = arguments.work / "train.txt", arguments.work / "held-out.txt"
    if not held_out.exists() or not all(path.exists() for path in paths.values()):
        pairs, _, documents = split.read_parts(arguments.corpus, split.HELD_OUT[arguments.language])
        arguments.work.mkdir(parents=True, exist_ok=True)
        write_documents(text, [target for _, target in pairs])
        source = vt.open_checkpoint(arguments.source)
        targets = [target for _, target in pairs]
        tokenizer = vt.train_tokenizer(targets, like=source.tokenizer, vocab_size=arguments.vocab_size)
        table = vt.align_corpus(pairs)
        for label, path in paths.items():
            if path.exists():
                continue
            entry = Entry.parse(label)
            result = vt.transfer(
                source, tokenizer, method=entry.method, alignment=table, calibrate=entry.calibrate, seed=arguments.seed
            )
            result.save(path)
        held_out.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return paths


def curve(arguments: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Adapt a checkpoint and return its curve: updates over all stages, bits per byte, training loss since the last."""
    output = arguments.work / f"{model.name}-adapted"
    result = vt.adapt(
        vt.AdaptRequest(
            str(model),
            (arguments.work / "train.txt",),
            output,
            tuple(vt.Stage.parse(stage) for stage in arguments.stage),
            held_out=(arguments.work / "held-out.txt",),
            held_out_bytes=arguments.bytes,
            evaluate_every=arguments.eval_every,
            save_every=arguments.eval_every,
            block=arguments.block,
            batch_tokens=arguments.batch_tokens,
            seed=arguments.seed,
            resume=True,
        )
    )
    before = [0]
    for losses in result.losses:
        before.append(before[-1] + len(losses))
    points = result.facts["curve"]
    shutil.rmtree(output)
    return {
        "updates": [before[point["stage"]] + point["update"] for point in points],
        "tokens": [point["tokens"] for point in points],
        "bits_per_byte": [round(point["bits_per_byte"], 4) for point in points],
        "loss": [None if point["loss"] is None else round(point["loss"], 4) for point in points],
    }


def reached(points: dict[str, Any], bits: float) -> float | None:
    """Return after how many updates a curve is first at ``bits`` or below, on straight lines between its points."""
    pairs = list(zip(points["updates"], points["bits_per_byte"], strict=True))
    if pairs[0][1] <= bits:
        return 0
    for (start, high), (end, low) in pairwise(pairs):
        if low <= bits:
            return round(start + (end - start) * (high - bits) / (high - low), 1)
    return None


def comparison(curves: dict[str, Any]) -> list[dict[str, Any]]:
    """For the lowest point of every curve: how many updates each initialisation needs to get there."""
    table = []
    for label, points in curves.items():
        lowest = min(points["bits_per_byte"])
        needed = {other: reached(own, lowest) for other, own in curves.items()}
        table.append({"lowest_of": label, "bits_per_byte": lowest, "updates_needed": needed})
    return sorted(table, key=lambda line: -float(line["bits_per_byte"]))


def draw(facts: dict[str, Any], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "vocabtransfer"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, points in facts["curves"].items():
        axes.plot(points["updates"], points["bits_per_byte"], marker=".", label=label)
    axes.set_xlabel(f"updates of {facts['batch_tokens']:,} tokens ({', '.join(facts['stages'])})")
    axes.set_ylabel("bits per byte on held-out text")
    axes.set_title(f"{facts['source']} with a vocabulary of {facts['vocabulary']:,} tokens ({facts['language']})")
    axes.legend(title="initialisation", fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--language", default="nl")
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--methods", nargs="+", default=["auto", "mean", "random"])
    parser.add_argument("--vocab-size", type=int, default=16_000)
    parser.add_argument("--stage", nargs="+", default=["tables:200:3e-4"])
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=256)
    parser.add_argument("--eval-every", type=int, default=25)
    parser.add_argument("--bytes", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, may be removed afterwards")
    parser.add_argument("--name", default="curves", help="of the results: NAME-LANGUAGE.json and .svg")
    arguments = parser.parse_args()
    results = HERE / "results" / f"{arguments.name}-{arguments.language}.json"
    skipped = ("corpus", "work", "name", "methods", "stage", "vocab_size")
    facts = {name: value for name, value in vars(arguments).items() if name not in skipped}
    facts |= {"corpus": arguments.corpus.name, "stages": arguments.stage, "vocabulary": arguments.vocab_size}
    facts["curves"] = {}
    if results.exists():
        found = json.loads(results.read_text(encoding="utf-8"))
        if {**found, "curves": {}, "comparison": None} != {**facts, "comparison": None}:
            sys.exit(f"{results} holds curves of other settings: move it away or give --name.")
        facts["curves"] = found["curves"]
    with show_progress(sys.stderr.isatty()):
        for label, path in prepare(arguments).items():
            if label not in facts["curves"]:
                facts["curves"][label] = curve(arguments, path)
            facts["comparison"] = comparison(facts["curves"])
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    draw(facts, results.with_suffix(".svg"))
    print(json.dumps(facts["comparison"], indent=1))


if __name__ == "__main__":
    main()
