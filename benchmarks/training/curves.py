"""Learning curves: how many updates and CPU seconds a model needs from one start and from another, its own vocabulary too.

    python benchmarks/training/curves.py --corpus en-nl.tsv.xz --language nl --work /tmp/curves
    python benchmarks/training/curves.py --corpus en-tt.tsv.xz --language tt --work /tmp/tt --vocab-size 4000 \\
        --stage all:150:3e-4 --dtype bf16 --methods own auto auto:tables=pieces,bpe_dropout=0.1 own:rate=1e-3

The corpus holds lines (part, English, target), as `vocabtransfer.corpora.parallel` makes them. Tokenizer, alignment,
frequencies and the text that is trained on come from parts that are not held out; bits per byte are measured on the
held-out parts (those of the leaderboard), and at the beginning and the end on every twentieth document of the other
parts, and on ``--other-text``. Every start gets the same text in the same order, stages and seed. Curves that are
finished are in ``results/`` and are not made again.

A start is ``own`` (the untouched model with its vocabulary) or a method as the leaderboard names it, and may be followed by
settings: ``:`` and, parted by commas, ``vocab=N``, ``extend=N`` (N tokens behind the source's instead of a new vocabulary),
``rate=X`` (of all stages), and ``tables``, ``bpe_dropout``, ``pull`` as `adapt` takes them. CPU seconds are those of
training, without scoring and saving.
"""

import argparse
import importlib.util
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from control_table import OWN

import vocabtransfer as vt
from vocabtransfer.leaderboard.contest import Entry, join_lines
from vocabtransfer.progress import show_progress
from vocabtransfer.training.loop import _StageRun

HERE = Path(__file__).parent
_KNOWN: dict[tuple[Path, Path], float] = {}


def leaderboard() -> Any:
    """The leaderboard's script, whose split of the corpora this is."""
    folder = HERE.parent / "leaderboard"
    sys.path.append(str(folder))  # it imports what lies beside it
    spec = importlib.util.spec_from_file_location("leaderboard_run", folder / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_of(label: str) -> tuple[str, dict[str, str]]:
    """Return the start and the settings of a label."""
    start, _, words = label.partition(":")
    parts = (word.partition("=") for word in words.split(",") if word)
    return start, {name: value for name, _, value in parts}


def learning_of(settings: dict[str, str]) -> dict[str, Any]:
    """Return what the settings of a label say of the training, as `AdaptRequest` takes it."""
    return {
        "tables": settings.get("tables", "rows"),
        "bpe_dropout": float(settings.get("bpe_dropout", 0)),
        "pull": float(settings.get("pull", 0)),
        "table_rate": float(settings["table_rate"]) if "table_rate" in settings else None,
    }


def prepare(arguments: argparse.Namespace) -> dict[str, Path]:
    """Make what is not there yet: training and held-out text, and a checkpoint for every start."""
    split = leaderboard()
    paths = {label: model_folder(arguments, label) for label in arguments.methods}
    text, held_out, same = (arguments.work / f"{name}.txt" for name in ("train", "held-out", "same"))
    if same.exists() and all(path.exists() for path in paths.values()):
        return paths
    pairs, _, documents = split.read_parts(arguments.corpus, split.HELD_OUT[arguments.language])
    pairs = pairs[:: arguments.every]
    groups = join_lines(target for _, target in pairs)
    kept_apart = groups[arguments.apart - 1 :: arguments.apart] if arguments.apart else []
    lines = {line for each in kept_apart for line in each.split("\n")}
    pairs = [pair for pair in pairs if pair[1] not in lines]
    arguments.work.mkdir(parents=True, exist_ok=True)
    learned = [each for number, each in enumerate(groups) if not arguments.apart or (number + 1) % arguments.apart]
    text.write_text("\n\n".join(learned) + "\n", encoding="utf-8")
    held_out.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    source = vt.open_checkpoint(arguments.source)
    table = vt.align_corpus(pairs)
    for label, path in paths.items():
        if not path.exists():
            make_model(arguments, label, source, pairs, table).save(path)
    same.write_text("\n\n".join(kept_apart) + "\n", encoding="utf-8")
    return paths


def model_folder(arguments: argparse.Namespace, label: str) -> Path:
    """Return where the checkpoint of a label lies; labels that differ in training alone have the same."""
    start, settings = settings_of(label)
    if start == OWN:
        return Path(vt.open_checkpoint(arguments.source).path)
    made = [f"{name}{settings[name]}" for name in ("vocab", "extend") if name in settings]
    return Path(arguments.work / re.sub(r"\W", "-", "-".join([start, *made])))


def make_model(arguments: argparse.Namespace, label: str, source: Any, pairs: list[tuple[str, str]], table: Any) -> Any:
    """Return the transfer that a label starts from."""
    start, settings = settings_of(label)
    targets = [target for _, target in pairs]
    if "extend" in settings:
        tokenizer = vt.extend_tokenizer(source.tokenizer, targets, new_tokens=int(settings["extend"])).tokenizer
    else:
        size = int(settings.get("vocab", arguments.vocab_size))
        tokenizer = vt.train_tokenizer(targets, like=source.tokenizer, vocab_size=size)
    entry = Entry.parse(start)
    evidence = vt.Evidence.of_pairs(pairs, alignment=table)
    return vt.transfer(source, tokenizer, evidence, method=entry.method, calibrate=entry.asked, seed=arguments.seed)


@contextmanager
def clock() -> Iterator[list[float]]:
    """Inside the block, the list gets the CPU seconds of training before every evaluation."""
    seconds: list[float] = []
    apart = 0.0

    def left_out(own: Callable[[_StageRun], None], *, noted: bool) -> Callable[[_StageRun], None]:
        def timed(run: _StageRun) -> None:
            nonlocal apart
            before = time.process_time()
            if noted:
                seconds.append(before - apart)
            own(run)
            apart += time.process_time() - before

        return timed

    with (
        mock.patch.object(_StageRun, "_evaluate", left_out(_StageRun._evaluate, noted=True)),
        mock.patch.object(_StageRun, "_save", left_out(_StageRun._save, noted=False)),
    ):
        yield seconds


def score(model: Path, text: Path, size: int) -> float:
    """Return bits per byte; what a start was given once is remembered."""
    if (model, text) not in _KNOWN:
        _KNOWN[model, text] = round(vt.evaluate(model, [text], max_bytes=size).bits_per_byte, 4)
    return _KNOWN.pop((model, text)) if model.name == "adapted" else _KNOWN[model, text]


def curve(arguments: argparse.Namespace, label: str, model: Path) -> dict[str, Any]:
    """Adapt a checkpoint and return its curve: updates over all stages, bits per byte, training loss since the last."""
    _, settings = settings_of(label)
    output = arguments.work / "adapted"
    stages = [stage.rsplit(":", 1)[0] + f":{settings['rate']}" for stage in arguments.stage if "rate" in settings]
    texts = {"same": arguments.work / "same.txt"} | ({"other": arguments.other_text} if arguments.other_text else {})
    with clock() as seconds:
        result = vt.adapt(
            vt.AdaptRequest(
                str(model),
                (arguments.work / "train.txt",),
                output,
                tuple(vt.Stage.parse(stage) for stage in stages or arguments.stage),
                held_out=(arguments.work / "held-out.txt",),
                held_out_bytes=arguments.bytes,
                evaluate_every=arguments.eval_every,
                save_every=1 << 30,
                block=arguments.block,
                batch_tokens=arguments.batch_tokens,
                dtype=arguments.dtype,
                **learning_of(settings),
                seed=arguments.seed,
                overwrite=True,
            )
        )
    before = [0]
    for losses in result.losses:
        before.append(before[-1] + len(losses))
    points = result.facts["curve"]
    scores = {name: [score(path, file, arguments.bytes) for path in (model, output)] for name, file in texts.items()}
    words = vt.evaluate(model, [arguments.work / "held-out.txt"], max_bytes=1_000).tokens_per_word
    shutil.rmtree(output)
    return {
        "updates": [before[point["stage"]] + point["update"] for point in points],
        "tokens": [point["tokens"] for point in points],
        "cpu_seconds": [round(each - seconds[0], 1) for each in seconds],
        "bits_per_byte": [round(point["bits_per_byte"], 4) for point in points],
        **scores,
        "tokens_per_word": round(words, 3),
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
    axes.legend(title="start", fontsize="small")
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
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--every", type=int, default=1, help="every N-th pair of the corpus only, for less text")
    parser.add_argument("--apart", type=int, default=20, help="every N-th document is scored, not trained on; 0: none")
    parser.add_argument("--other-text", type=Path, help="text of another domain, scored at the beginning and the end")
    parser.add_argument("--batch-tokens", type=int, default=256)
    parser.add_argument("--eval-every", type=int, default=25)
    parser.add_argument("--bytes", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints, may be removed afterwards")
    parser.add_argument("--name", default="curves", help="of the results: NAME-LANGUAGE.json and .svg")
    arguments = parser.parse_args()
    results = HERE / "results" / f"{arguments.name}-{arguments.language}.json"
    skipped = ("corpus", "work", "name", "methods", "stage", "vocab_size", "other_text")
    facts = {name: value for name, value in vars(arguments).items() if name not in skipped}
    facts |= {"corpus": arguments.corpus.name, "stages": arguments.stage, "vocabulary": arguments.vocab_size}
    facts["other_text"] = arguments.other_text.name if arguments.other_text else None
    facts["curves"] = {}
    if results.exists():
        found = json.loads(results.read_text(encoding="utf-8"))
        if {**found, "curves": {}, "comparison": None} != {**facts, "comparison": None}:
            sys.exit(f"{results} holds curves of other settings: move it away or give --name.")
        facts["curves"] = found["curves"]
    with show_progress(sys.stderr.isatty()):
        for label, path in prepare(arguments).items():
            if label not in facts["curves"]:
                facts["curves"][label] = curve(arguments, label, path)
            facts["comparison"] = comparison(facts["curves"])
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    draw(facts, results.with_suffix(".svg"))
    print(json.dumps(facts["comparison"], indent=1))


if __name__ == "__main__":
    main()
