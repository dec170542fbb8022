"""The control: a model trained further with its own vocabulary against a new one, with the same text and the same CPU time.

    python benchmarks/training/control.py --corpora FOLDER --language tt --work /tmp/control
    python benchmarks/training/control.py --corpora FOLDER --language nl --source GEMMA.gguf --starts own auto:extend
    python benchmarks/training/control.py --corpora FOLDER --language tt --work /tmp/control --cost 5
    python benchmarks/training/control.py --table

FOLDER holds ``en-XX.tsv.xz`` files, split as by ``benchmarks/leaderboard/sources.py``: what is trained on, held-out
documents of the same kind of text, and parts that are another kind. All parameters are trained, by `adapt`; every start
gets the same text, settings and seed, and both kinds of text are scored on the way. A start has a file in
``results/control``, with ``--desk`` in ``results/control-desk``; curves that are there are not made again. What
was tried on a desk and not taken was moved to ``results/control-tried``.

A start is ``own`` (the untouched model), or a method as the leaderboard names it, and settings behind ``:``, parted by
commas: ``extend`` or ``extend=N`` (N tokens behind the source's instead of a vocabulary of its own), ``vocab=N``,
``after=N`` (the vocabulary is changed after N updates with the source's own, at the highest rate), and ``tables``,
``bpe_dropout``, ``pull`` and ``table_rate`` as `adapt` takes them.

With ``--patience N`` a curve ends early when neither kind of text had a new best in so many scorings; whoever trains keeps
the best then, as `adapt` does, and so the tables go on with it.

What an update costs is noted where curves are made on a CPU. Curves may be made on a GPU; then ``--cost`` measures it apart,
on the CPU at hand: CPU seconds of updates of the same size, the first left out. That and the characters of an update give
the axes on which two vocabularies are compared.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).parents[1] / "leaderboard"))

import torch
from control_table import DESK, OWN, WHOLE, text_of
from curves import learning_of, settings_of
from sources import LARGEST, MOST_NEW, Texts, corpus_of, read_texts

import vocabtransfer as vt
from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.evaluation.texts import limit_bytes
from vocabtransfer.languages import find_language
from vocabtransfer.leaderboard.contest import Entry, join_lines
from vocabtransfer.pipeline.new_tokens import default_new_tokens
from vocabtransfer.pipeline.request import BuildRequest
from vocabtransfer.pipeline.target_tokenizer import default_vocab_size, make_tokenizer
from vocabtransfer.progress import show_progress
from vocabtransfer.running.settings import running_with
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.training.loop import _StageRun

BLOCK, SAMPLE_CHARACTERS = 128, 200_000


class Bench:
    """A source and a corpus, and the checkpoints that trainings start from."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        given = arguments.source
        self.source = vt.open_checkpoint(Path(given) if Path(given).exists() else given)
        self.texts: Texts = read_texts(corpus_of(arguments.corpora, arguments.language), arguments.language)
        self.evidence: Evidence | None = None
        arguments.work.mkdir(parents=True, exist_ok=True)
        self.train, self.held_out = arguments.work / "train.txt", arguments.work / "held-out.txt"
        self.train.write_text(
            "\n\n".join(join_lines(target for _, target in self.texts.pairs)) + "\n", encoding="utf-8"
        )
        self.held_out.write_text("\n\n".join(self.texts.own) + "\n", encoding="utf-8")

    def start(self, label: str) -> Path:
        """Return the checkpoint of a start, made where it is not there yet."""
        name, settings = settings_of(label)
        if name == OWN:
            return Path(self.source.path)
        shape = {key: value for key, value in settings.items() if key in ("after", "extend", "vocab")}
        folder = Path(
            self.arguments.work / "-".join([folder_name(name), *(key + value for key, value in shape.items())])
        )
        if not folder.exists():
            self.made(name, shape).save(folder)
        return folder

    def trained(self, updates: int) -> Path:
        """Return the source after so many updates with its own vocabulary, trained where it is not there yet."""
        folder = Path(self.arguments.work / f"own-after-{updates}")
        if not folder.exists():
            self.adapt(OWN, max(self.arguments.rates), updates, Points({}), keep=folder)
        return folder

    def made(self, name: str, shape: dict[str, str]) -> Any:
        """Return the transfer of a method with the vocabulary that `build` makes, or one of the size asked for."""
        source = vt.open_checkpoint(self.trained(int(shape["after"]))) if "after" in shape else self.source
        if self.evidence is None:
            self.evidence = Evidence.of_pairs(self.texts.pairs, alignment=align_corpus(self.texts.pairs))
        words = self.evidence.word_counts
        sizes: dict[str, Any] = {"vocabulary": "replace"}
        if "extend" in shape:
            new = int(shape["extend"] or min(MOST_NEW, default_new_tokens(words)))
            sizes = {"vocabulary": "extend", "new_tokens": new}
        else:
            sizes["vocab_size"] = int(shape.get("vocab") or min(LARGEST, default_vocab_size(words)))
        request = BuildRequest(self.arguments.source, self.arguments.language, **sizes)
        language = find_language(self.arguments.language)
        made = make_tokenizer(request, source, language, words, self.evidence.running, self.texts.own)
        entry = Entry.parse(name)
        return vt.transfer(source, made.tokenizer, self.evidence, method=entry.method, calibrate=entry.asked)

    def adapt(self, label: str, rate: float, updates: int, points: "Points", keep: Path | None = None) -> None:
        """Train a start, all of it; what is scored and what it costs goes to ``points``. The model stays in ``keep``."""
        arguments, (_, settings) = self.arguments, settings_of(label)
        output = keep or arguments.work / f"adapted-{folder_name(label)}"
        request = vt.AdaptRequest(
            str(self.start(label)),
            (self.train,),
            output,
            (vt.Stage.parse(f"all:{updates}:{rate}"),),
            held_out=(self.held_out,),
            held_out_bytes=arguments.bytes,
            evaluate_every=arguments.eval_every,
            save_every=1 << 30,
            patience=arguments.patience,
            block=BLOCK,
            batch_tokens=arguments.batch_tokens,
            dtype=arguments.dtype,
            # torch's fused kernel takes two to three times as long backwards on a CPU, for rows as short as these.
            attention="eager" if arguments.device == "cpu" else None,
            **learning_of(settings),
            device=arguments.device,
            overwrite=True,
        )
        with points.watching():
            vt.adapt(request)
        if keep is None:
            shutil.rmtree(output)

    def density(self, label: str) -> dict[str, float]:
        """Return characters a token of the text that is trained on, and tokens a word of held-out text of both kinds."""
        tokenizer = vt.open_checkpoint(self.start(label)).tokenizer.backend_tokenizer
        sample = self.train.read_text(encoding="utf-8")[:SAMPLE_CHARACTERS]
        found = {"characters_a_token": len(sample) / len(tokenizer.encode(sample, add_special_tokens=False).ids)}
        for name, documents in (("own", self.texts.own), ("other", self.texts.other)):
            text = "\n".join(documents)
            tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
            found[f"tokens_a_word_{name}"] = tokens / len(text.split())
        return {name: round(value, 3) for name, value in found.items()}


class Points:
    """What is noted of a training: scores of both kinds of text on the way, and the CPU seconds of each update."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = texts
        self.updates: list[int] = []
        self.scores: dict[str, list[float]] = {name: [] for name in texts}
        self.seconds: list[float] = []

    @property
    def waited(self) -> int:
        """How many scorings ago one of the kinds had its best."""
        return min(
            (len(scores) - 1 - scores.index(min(scores)) for scores in self.scores.values() if scores), default=0
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Score and time what trains inside; nothing is saved on the way, and the end is what it ends with."""

        def evaluate(run: _StageRun) -> None:
            self.updates.append(run.progress.update)
            for name, documents in self.texts.items():
                with run.run.accelerator.autocast():
                    score = bits_per_byte(run.plain, run.run.tokenizer, documents)
                self.scores[name].append(round(score.bits_per_byte, 4))
            last = next(iter(self.scores.values()))[-1] if self.texts else 0.0
            run.progress.record(run.stage.name, last)
            run.progress.best, run.progress.waited = run.progress.update, self.waited

        with (
            mock.patch.object(_StageRun, "_evaluate", evaluate),
            mock.patch.object(_StageRun, "_save", lambda run: None),
            mock.patch.object(_StageRun, "_update", self._timed(_StageRun._update)),
        ):
            yield

    def _timed(self, update: Callable[..., bool]) -> Callable[..., bool]:
        def timed(run: _StageRun, rows: Any) -> bool:
            before = time.process_time()
            stopped = update(run, rows)
            self.seconds.append(time.process_time() - before)
            return stopped

        return timed


def measure(bench: Bench, arguments: argparse.Namespace, label: str) -> None:
    """Make the curves of a start that are missing, or measure what its update costs; its file is written after each."""
    facts: dict[str, Any] = {
        "source": bench.source.name.split("/")[-1],
        "language": arguments.language,
        "start": label,
        "pairs": len(bench.texts.pairs),
        "characters": len(bench.train.read_text(encoding="utf-8")),
        **{name: getattr(arguments, name) for name in ("updates", "batch_tokens", "eval_every", "bytes")},
    }
    file = (DESK if arguments.desk else WHOLE) / f"{facts['source']}-{arguments.language}-{folder_name(label)}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {**facts, "curves": {}}
    if {name: known.get(name) for name in facts} != facts:
        sys.exit(f"{file} holds curves of other settings: move it away.")
    known |= bench.density(label)
    known["after"] = int(settings_of(label)[1].get("after", 0))
    if arguments.cost:
        points = Points({})
        bench.adapt(label, 1e-5, arguments.cost + 1, points)
        known |= cost_of(points.seconds, arguments.dtype)
    texts = {
        name: list(limit_bytes(documents, arguments.bytes))
        for name, documents in (("own", bench.texts.own), ("other", bench.texts.other))
    }
    for rate in [] if arguments.cost else arguments.rates:
        if f"{rate:g}" not in known["curves"]:
            points = Points(texts)
            bench.adapt(label, rate, arguments.updates, points)
            known["curves"][f"{rate:g}"] = {"updates": points.updates, **points.scores}
            if arguments.device == "cpu":
                known |= cost_of(points.seconds, arguments.dtype)
            print(file.name, rate, {key: (values[0], values[-1]) for key, values in points.scores.items()}, flush=True)
            write(file, known)
    write(file, known)


def cost_of(seconds: list[float], dtype: str) -> dict[str, Any]:
    """Return the mean CPU seconds of updates but the first (of that where it is alone), and in what they were computed."""
    counted = seconds[1:] or seconds
    return {"cpu_seconds_an_update": round(sum(counted) / len(counted), 3), "cpu_dtype": dtype}


def folder_name(label: str) -> str:
    """Return a start's label as part of a file's name."""
    return re.sub(r"[^\w.]+", "-", label)


def write(file: Path, facts: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, nargs="+", help="folders; the first with the language is taken")
    parser.add_argument("--language", default="tt")
    parser.add_argument("--source", default="smollm2", help="alias or file")
    parser.add_argument("--starts", nargs="+", default=[OWN, "auto", "auto:extend"])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 3e-4])
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--batch-tokens", type=int, default=1_024)
    parser.add_argument("--eval-every", type=int, default=50)
    parser.add_argument("--patience", type=int, help="scorings without a new best that end a curve")
    parser.add_argument("--bytes", type=int, default=12_000, help="held-out bytes of each kind to score")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"], help="of the products")
    parser.add_argument("--cost", type=int, default=0, help="measure CPU seconds over so many updates instead")
    parser.add_argument("--desk", action="store_true", help="curves shorter than the others', in a folder of their own")
    parser.add_argument("--work", type=Path, help="folder for checkpoints, may be removed afterwards")
    parser.add_argument("--table", action="store_true", help="only print what is in results/")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if not arguments.table:
        if not arguments.corpora or not arguments.work:
            parser.error("--corpora and --work are needed to measure.")
        bench = Bench(arguments)
        device = arguments.device
        with show_progress(sys.stderr.isatty()), running_with(device, None if device == "cpu" else "float32"):
            for label in arguments.starts:
                measure(bench, arguments, label)
    print(text_of())


if __name__ == "__main__":
    main()
