"""Learned Embedding Propagation from end to end on a small model: does a skill learnt in English survive in Dutch?

    python benchmarks/propagation/run.py --corpus en-nl.tsv.xz --scratch build/propagation

1. A descendant of the base model is taught a skill that can be counted, on English sentences, with all its parameters:
   to name the first and the last word of a sentence in a fixed form.
2. The base model gets a vocabulary of Dutch and English, and its tables are trained on Dutch text.
3. The adapted vocabulary is carried to the descendant by swap, overlap and conversion.
4. Copying is what new rows damage most (two tokens with the same translation start as twins), so the last step of the
   method is run too: self-calibration on copy tasks.

Measured on each: bits per byte of held-out Dutch text, and the shares of held-out sentences, Dutch and English, that are
answered in the form that was taught, and of which both words are named without a fault. For comparison: the descendant
as it is, with its own vocabulary; and with the new vocabulary made for it directly, from pieces or by `auto`, without any
training on Dutch, which is what one has without propagation.

The corpus has the columns part, English, Dutch; the parts gnome-help and debian-handbook have no share in tokenizer,
alignment and lessons. The tables are trained on manuals: the parts install-guide and debian-faq, and six of seven
documents of those two. Every seventh is scored, and all questions are sentences of it. Steps that are done are kept in
the scratch folder, so an interrupted run goes on where it stopped.
"""

import argparse
import json
import lzma
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.progress import show_progress, track
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.training.stage import Stage

HERE = Path(__file__).parent
HELD_OUT = {"gnome-help", "debian-handbook"}
MANUALS = {"install-guide", "debian-faq"}
SCORED = 7  # every seventh document of the parts held out is scored
METHODS = ("swap", "overlap", "conversion")
DOCUMENT = 1_500
BATCH = 20
FORM = re.compile(r"\S+ & \S+")
Pair = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """Pairs for tokenizer, alignment and lessons; Dutch documents to train the tables on; pairs to measure on."""

    pairs: list[Pair]
    training: list[str]
    scored: list[Pair]

    @property
    def scored_text(self) -> list[str]:
        return joined([dutch for _, dutch in self.scored])


def read_corpus(path: Path) -> Corpus:
    kept: list[Pair] = []
    manuals: list[str] = []
    documents: list[list[Pair]] = [[]]
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for part, english, dutch in (line.rstrip("\n").split("\t") for line in lines):
            if part not in HELD_OUT:
                kept.append((english, dutch))
                manuals += [dutch] if part in MANUALS else []
                continue
            documents[-1].append((english, dutch))
            if sum(len(pair[1]) for pair in documents[-1]) > DOCUMENT:
                documents.append([])
    scored = [pair for document in documents[::SCORED] for pair in document]
    others = [dutch for place, document in enumerate(documents) if place % SCORED for _, dutch in document]
    return Corpus(kept, joined(manuals) + joined(others), scored)


def sentences(pairs: Sequence[Pair], side: int, count: int) -> list[str]:
    """Return sentences whose first and last words are plain words, spread over the pairs."""

    def fits(text: str) -> bool:
        words = text.split()
        return (
            5 <= len(words) <= 14 and words[0].isalpha() and words[-1].rstrip(".").isalpha() and words[0] != words[-1]
        )

    found = list(dict.fromkeys(pair[side] for pair in pairs if fits(pair[side])))
    return found[:: max(1, len(found) // count)][:count]


def question(sentence: str) -> str:
    return f"Sentence: {sentence}\nFirst and last word:"


def answer(sentence: str) -> str:
    words = sentence.split()
    return f" {words[0]} & {words[-1].rstrip('.')}"


@torch.inference_mode()
def skill(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[str]) -> dict[str, float]:
    """Return the shares of sentences that are answered in the form that was taught, and with the right words in it."""
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    formed = right = 0
    for start in track(range(0, len(asked), BATCH), "asking", total=len(range(0, len(asked), BATCH))):
        batch = asked[start : start + BATCH]
        prompt = tokenizer([question(s) for s in batch], add_special_tokens=False, padding=True, return_tensors="pt")
        made = model.generate(**prompt, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        said = tokenizer.batch_decode(made[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        first = [text.partition("\n")[0].strip() for text in said]
        formed += sum(FORM.fullmatch(line) is not None for line in first)
        right += sum(line == answer(sentence).strip() for line, sentence in zip(first, batch, strict=True))
    return {"form": formed / len(asked), "words": right / len(asked)}


def write_documents(path: Path, documents: Sequence[str]) -> Path:
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


def joined(lines: Sequence[str]) -> list[str]:
    """Return lines put together to documents of some 1,500 characters."""
    documents, current = [], ""
    for line in lines:
        current += line + "\n"
        if len(current) > DOCUMENT:
            documents.append(current)
            current = ""
    return [*documents, current] if current else documents


class Experiment:
    """The models of one run, each made once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.home: Path = arguments.scratch
        self.home.mkdir(parents=True, exist_ok=True)
        self.arguments = arguments
        self.base = vt.open_checkpoint(arguments.base)
        self.corpus = read_corpus(arguments.corpus)

    def make(self, name: str, maker: Callable[[Path], Any]) -> Path:
        folder = self.home / name
        if not folder.exists():
            started = time.perf_counter()
            maker(folder)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        return folder

    def train(self, model: Path, text: Path, output: Path, stage: str) -> None:
        vt.adapt(
            vt.AdaptRequest(
                model=str(model),
                text=(text,),
                output=output,
                stages=(Stage.parse(stage),),
                block=128,
                batch_tokens=self.arguments.batch_tokens,
                dtype="bf16",
                resume=True,
            )
        )

    def run(self) -> dict[str, Any]:
        taught = sentences(self.corpus.pairs, 0, 4_000)
        lessons = write_documents(self.home / "lessons.txt", [question(s) + answer(s) for s in taught])
        instruct = self.make(
            "instruct", lambda to: self.train(self.base.path, lessons, to, f"all:{self.arguments.lessons}:1e-4")
        )
        # Instructions are in English: a vocabulary of Dutch alone spells them in pieces that nothing ever taught.
        both = [text for pair in self.corpus.pairs for text in pair]
        tokenizer = vt.train_tokenizer(both, like=self.base.tokenizer, vocab_size=self.arguments.vocab_size)
        evidence = vt.Evidence(alignment=vt.align_corpus(self.corpus.pairs))
        transferred = self.make("transferred", lambda to: vt.transfer(self.base, tokenizer, evidence).save(to))
        text = write_documents(self.home / "dutch.txt", self.corpus.training)
        adapted = self.make(
            "adapted", lambda to: self.train(transferred, text, to, f"tables:{self.arguments.updates}:3e-4")
        )
        models = {"descendant, own vocabulary": instruct}
        for method in ("pieces", "auto"):
            models[f"no propagation: {method}, untrained"] = self.make(
                f"direct-{method}",
                lambda to, method=method: vt.transfer(
                    vt.open_checkpoint(instruct), tokenizer, evidence, method=method
                ).save(to),
            )
        opened = [vt.open_checkpoint(folder) for folder in (self.base.path, adapted, instruct)]
        for method in METHODS:
            models[f"propagated: {method}"] = self.make(
                f"propagated-{method}", lambda to, method=method: vt.propagate(*opened, method=method).save(to)
            )
        models["conversion, then calibrated"] = self.make(
            "calibrated",
            lambda to: vt.calibrate(
                vt.CalibrateRequest(
                    str(self.home / "propagated-conversion"), (text,), to, tasks=200, held_out_tasks=20, longest=120
                )
            ),
        )
        models |= {"base, own vocabulary": self.base.path, "base, adapted": adapted}
        return {name: self.measure(folder) for name, folder in models.items()}

    def measure(self, folder: Path) -> dict[str, Any]:
        kept = self.home / f"{folder.name}.json"
        if not kept.exists():
            model, tokenizer = load_causal_model(folder), vt.load_tokenizer(folder)
            count = self.arguments.questions
            facts = {
                "bits_per_byte": vt.bits_per_byte(
                    model, tokenizer, self.corpus.scored_text, max_bytes=20_000
                ).bits_per_byte,
                "dutch": skill(model, tokenizer, sentences(self.corpus.scored, 1, count)),
                "english": skill(model, tokenizer, sentences(self.corpus.scored, 0, count)),
            }
            kept.write_text(json.dumps(facts))
            print(folder.name, facts, flush=True)
        return dict(json.loads(kept.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the models")
    parser.add_argument("--lessons", type=int, default=400, help="updates that teach the skill")
    parser.add_argument("--updates", type=int, default=150, help="updates of the tables on Dutch text")
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--vocab-size", type=int, default=12_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--keep", action="store_true", help="keep the models")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with show_progress(sys.stderr.isatty()):
        rows = Experiment(arguments).run()
    settings = {
        name: getattr(arguments, name) for name in ("lessons", "updates", "batch_tokens", "vocab_size", "questions")
    }
    output = HERE / "results" / "propagation.json"
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps({"base": arguments.base, **settings, "models": rows}, indent=1) + "\n")
    print("| model | bits per byte | Dutch: form | words | English: form | words |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        shares = [row[language][share] for language in ("dutch", "english") for share in ("form", "words")]
        print(f"| {name} | {row['bits_per_byte']:.3f} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    if not arguments.keep:
        shutil.rmtree(arguments.scratch)


if __name__ == "__main__":
    main()
