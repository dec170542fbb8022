"""Translation by a Hydra: English prompts in the English vocabulary, Dutch answers in a transferred one.

    python benchmarks/hydra/translation.py --corpora FOLDER --work FOLDER
    python benchmarks/hydra/translation.py --corpora FOLDER --work FOLDER --ways own      # adds to the results

FOLDER holds ``en-nl.tsv.xz`` (part, English, Dutch), as `vocabtransfer.corpora.parallel` makes it. Tokenizer, alignment
and training texts come from the training parts, the test pairs from the held-out parts (those of ../leaderboard/run.py).
Needs sacrebleu and peft. Set OMP_NUM_THREADS=1 where other work goes on. Scored with chrF on the same pairs:

copy             the English text as it is: what names and loanwords alone score
own              SmolLM2-135M-Instruct asked to translate into Dutch, with its own vocabulary
head             the same question, answered with the Dutch head as the transfer made it
head_text        after training on Dutch text alone: no translation was seen, so this is zero-shot
head_text_pairs  then on translations: questions with the English table, labels on the Dutch segment only
own_text, own_text_pairs   the same texts, pairs and order with the model's own vocabulary: what the head adds

Trained are a LoRA on the body and the tables of the head that writes.
"""

import argparse
import json
import lzma
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from sacrebleu.metrics import CHRF
from transformers.utils import logging

import vocabtransfer as vt
from vocabtransfer.hydra import HydraForCausalLM, add_head, create_hydra, is_hydra, open_hydra
from vocabtransfer.hydra.translate import INSTRUCTION, prompt_ids
from vocabtransfer.progress import show_progress, track

HERE = Path(__file__).parent
WAYS = ("untrained", "head", "own")
HELD_OUT = {"gnome-help", "debian-handbook"}
LENGTHS = (20, 120)  # characters of a sentence
LEARNING_RATE = {"lora": 1e-4, "tables": 2e-4}


def read_corpus(corpora: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return training pairs and held-out pairs of sentences."""
    pairs, held_out = [], []
    with lzma.open(corpora / "en-nl.tsv.xz", "rt", encoding="utf-8") as file:
        for line in file:
            part, english, dutch = line.rstrip("\n").split("\t")
            if part not in HELD_OUT:
                pairs.append((english, dutch))
            elif all(LENGTHS[0] < len(text) < 300 for text in (english, dutch)):
                held_out.append((english, dutch))
    return pairs, held_out


def build(work: Path, pairs: list[tuple[str, str]]) -> None:
    """Make the Hydra, if it is not there: English as published, Dutch transferred from the training pairs."""
    source = vt.open_checkpoint("smollm2")
    if not is_hydra(work):
        create_hydra(source, work, own_name="english", link="copy")
    if "dutch" in open_hydra(work).names():
        return
    tokenizer = vt.train_tokenizer([dutch for _, dutch in pairs], like=source.tokenizer, vocab_size=16_000)
    result = vt.transfer(source, tokenizer, vt.Evidence(alignment=vt.align_corpus(pairs)))
    add_head(work, "dutch", result, language="nl")


def load(work: Path) -> HydraForCausalLM:
    return HydraForCausalLM.from_pretrained(work, dtype=torch.float32)


class Learner:
    """A LoRA on the body and the tables of one head, trained together."""

    def __init__(self, model: HydraForCausalLM, writer: str, updates: int) -> None:
        torch.manual_seed(0)
        if writer == "dutch":
            model.load_head(writer, is_trainable=True)
        settings = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", exclude_modules=["lm_head"])
        wrapped = peft.get_peft_model(model.backbone, settings)
        tables = list(model.head(writer).tables.parameters())
        for table in tables:
            table.requires_grad_(True)
        kept = {id(table) for table in tables}
        lora = [p for p in wrapped.parameters() if p.requires_grad and id(p) not in kept]
        groups = [
            {"params": lora, "lr": LEARNING_RATE["lora"], "weight_decay": 0.0},
            {"params": tables, "lr": LEARNING_RATE["tables"], "weight_decay": 0.0},
        ]
        self.model, self.writer, self.tokens, self.losses = model, writer, 0, []
        self._parameters = [*lora, *tables]
        self._optimizer = torch.optim.AdamW(groups)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / 10) * max(0.05, 1 - step / max(1, updates))
        )

    def update(self, encoding: Any) -> None:
        self.model.train()
        loss = self.model(**encoding).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        self.model.eval()
        self.tokens += int((encoding["labels"] != -100).sum())
        self.losses.append(float(loss.detach()))


def batches(items: list[Any], size: int, count: int, seed: int) -> Iterator[list[Any]]:
    """Yield ``count`` batches of items of about equal length, the same for the same seed."""
    drawn = random.Random(seed)
    chosen = drawn.sample(items, min(len(items), size * count))
    chosen.sort(key=lambda item: len(item[1]))
    groups = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    drawn.shuffle(groups)
    yield from groups


def learn_text(learner: Learner, pairs: list[tuple[str, str]], options: Any) -> None:
    """Train on Dutch text alone."""
    for batch in track(batches(pairs, options.batch, options.text_updates, 1), "Dutch text", options.text_updates):
        rows = [[(learner.writer, dutch)] for _, dutch in batch]
        learner.update(learner.model.encode(rows, train=learner.writer, end=True))


def learn_pairs(learner: Learner, pairs: list[tuple[str, str]], options: Any) -> None:
    """Train on answers after questions in English: one sequence, two vocabularies, labels on the answer only."""
    model = learner.model
    reader, writer = model.head("english"), model.head(learner.writer)
    for batch in track(batches(pairs, options.batch, options.pair_updates, 2), "pairs", options.pair_updates):
        rows = [
            [("english", prompt(reader, writer, english)), (writer.name, writer.encode([dutch], special=False)[0])]
            for english, dutch in batch
        ]
        if writer is reader:  # one vocabulary, so the parts of a row are told apart by hand
            learner.update(one_vocabulary(rows, writer.end_ids[0]))
        else:
            learner.update(model.encode(rows, train=writer.name, end=True))


def prompt(reader: Any, writer: Any, english: str) -> list[int]:
    """Return the question, as `translate` asks it, always naming Dutch."""
    return prompt_ids(reader, writer, english, template=TEMPLATE, chat=True)


TEMPLATE = INSTRUCTION.replace("{source}", "English").replace("{target}", "Dutch")


def one_vocabulary(rows: list[Any], end: int) -> dict[str, torch.Tensor]:
    lines = [([*question, *answer, end], len(question)) for (_, question), (_, answer) in rows]
    width = max(len(ids) for ids, _ in lines)
    ids = torch.tensor([[*line, *[end] * (width - len(line))] for line, _ in lines])
    mask = torch.tensor([[1] * len(line) + [0] * (width - len(line)) for line, _ in lines])
    labels = ids.masked_fill(mask == 0, -100)
    for row, (_, begin) in enumerate(lines):
        labels[row, :begin] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answers(model: HydraForCausalLM, writer: str, texts: list[str]) -> list[str]:
    settings = {"template": TEMPLATE, "chat": True, "batch_size": 48}
    return list(model.translate(texts, source="english", target=writer, **settings))


def score(stage: str, said: list[str], test: list[tuple[str, str]]) -> dict[str, Any]:
    english, dutch = [pair[0] for pair in test], [pair[1] for pair in test]
    rows = list(zip(english, dutch, said, strict=True))
    return {
        "stage": stage,
        "chrf": round(CHRF().corpus_score(said, [dutch]).score, 2),
        "unchanged": sum(answer.strip() == text.strip() for text, _, answer in rows),
        "empty": sum(not answer.strip() for answer in said),
        "examples": [{"english": e, "dutch": d, "answer": a} for e, d, a in rows[:6]],
    }


def untrained(options: Any, test: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Score what needs no training."""
    english = [pair[0] for pair in test]
    yield score("copy", english, test)
    for stage, writer in (("own", "english"), ("head", "dutch")):
        yield score(stage, answers(load(options.work), writer, english), test)


def trained(writer: str, options: Any, pairs: list[tuple[str, str]], test: list[tuple[str, str]]) -> Iterator[Any]:
    """Score after training on text, and after pairs."""
    usable = [pair for pair in pairs if all(LENGTHS[0] <= len(text) <= LENGTHS[1] for text in pair)]
    learner = Learner(load(options.work), writer, options.text_updates + options.pair_updates)
    name = "head" if writer == "dutch" else "own"
    for part, learn in (("text", learn_text), ("text_pairs", learn_pairs)):
        started, tokens, updates = time.process_time(), learner.tokens, len(learner.losses)
        learn(learner, usable, options)
        losses = learner.losses[updates:]
        facts = {
            "cpu_seconds": round(time.process_time() - started, 1),
            "updates": len(losses),
            "rows_an_update": options.batch,
            "learning_rate": LEARNING_RATE,
            "learnt_tokens": learner.tokens - tokens,
            "loss_first_10": round(sum(losses[:10]) / 10, 3),
            "loss_last_10": round(sum(losses[-10:]) / 10, 3),
        }
        said = answers(learner.model, writer, [pair[0] for pair in test])
        yield {**score(f"{name}_{part}", said, test), "training": facts}


def fair(pairs: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Leave out pairs that nobody translated: where half of the Dutch words stand in the English."""

    def shared(english: str, dutch: str) -> float:
        words = dutch.lower().split()
        return sum(word in set(english.lower().split()) for word in words) / max(1, len(words))

    kept = [pair for pair in pairs if shared(*pair) < 0.5 and len(pair[0]) <= LENGTHS[1]]
    return kept[:: max(1, len(kept) // count)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the Hydra")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--test", type=int, default=48, help="held-out pairs")
    parser.add_argument("--text-updates", type=int, default=80)
    parser.add_argument("--pair-updates", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "translation.json")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    pairs, held_out = read_corpus(options.corpora)
    test = fair(held_out, options.test)
    setting = {"test": options.test}
    results: dict[str, Any] = {"setting": setting, "stages": []}
    if options.output.is_file():
        kept = json.loads(options.output.read_text())
        results = kept if kept["setting"] == setting else results
    with show_progress():
        build(options.work, pairs)
        ways = {
            "untrained": lambda: untrained(options, test),
            "head": lambda: trained("dutch", options, pairs, test),
            "own": lambda: trained("english", options, pairs, test),
        }
        for way in options.ways:
            for facts in ways[way]():
                others = [other for other in results["stages"] if other["stage"] != facts["stage"]]
                results["stages"] = [*others, facts]
                options.output.parent.mkdir(parents=True, exist_ok=True)
                options.output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
                print(f"{facts['stage']:16} chrF {facts['chrf']:6.2f}", flush=True)


if __name__ == "__main__":
    main()
