"""Few-shot translation where the body knows both languages: its own head reads English, a new head writes Dutch.

    python benchmarks/hydra/few_shot.py --corpora FOLDER --source GEMMA.gguf --work FOLDER

FOLDER holds ``en-nl.tsv.xz`` (part, English, Dutch), as `vocabtransfer.corpora.parallel` makes it. The new head is what
``build --vocabulary extend --new-tokens 2000 --distill 240`` makes of the Dutch side of one program's help; if
WORK/dutch is there, it is taken. Every sentence is translated by both heads after the same examples, greedily, up to the
end of the line:
sentences of the same help that were kept apart, and of another program's help. Reported are chrF, the tokens that
were written, and CPU seconds; ``copy`` is the English text as it is. Needs sacrebleu.
"""

import argparse
import json
import lzma
import random
import time
from pathlib import Path
from typing import Any

import torch
from sacrebleu.metrics import CHRF
from transformers.utils import logging

import vocabtransfer as vt
from vocabtransfer.hydra import HydraForCausalLM, add_head_from_checkpoint, create_hydra, is_hydra
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.progress import show_progress

HERE = Path(__file__).parent
OWN, NEW = "gemma", "dutch"
TRAINED, OTHER = "libreoffice-help", "gnome-help"
HELD_OUT, DOCUMENT = 40, 1_500  # documents kept apart, characters of a document
BATCH = 25
LENGTHS = (30, 120)  # characters of a sentence

Pairs = list[tuple[str, str]]


def documents(corpora: Path, part: str) -> list[Pairs]:
    """Return the pairs of a part in documents of some 1,500 characters, no Dutch line twice, in a fixed random order."""
    made: list[Pairs] = [[]]
    seen: set[str] = set()
    with lzma.open(corpora / "en-nl.tsv.xz", "rt", encoding="utf-8") as file:
        for line in file:
            name, english, dutch = line.rstrip("\n").split("\t")
            if name != part or dutch in seen:
                continue
            seen.add(dutch)
            made[-1].append((english, dutch))
            if sum(len(text) for _, text in made[-1]) > DOCUMENT:
                made.append([])
    made.pop()
    random.Random(0).shuffle(made)
    return made


def sentences(groups: list[Pairs]) -> Pairs:
    """Return the pairs that are sentences, without those of which half of the Dutch words stand in the English."""
    found = []
    for english, dutch in (pair for group in groups for pair in group):
        words = dutch.lower().split()
        shared = sum(word in set(english.lower().split()) for word in words)
        if all(LENGTHS[0] <= len(text) <= LENGTHS[1] for text in (english, dutch)) and shared < 0.5 * len(words):
            found.append((english, dutch))
    return found


def hydra(options: argparse.Namespace, trained: list[Pairs]) -> HydraForCausalLM:
    """Return the model with both heads; what is not there is built."""
    model, folder = options.work / "dutch", options.work / "hydra"
    options.work.mkdir(parents=True, exist_ok=True)
    if not model.exists():
        files = {}
        for name, groups in (("train", trained[HELD_OUT:]), ("held", trained[:HELD_OUT])):
            files[name] = options.work / f"{name}.txt"
            texts = ("\n".join(dutch for _, dutch in group) for group in groups)
            files[name].write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        settings: dict[str, Any] = {"text": [files["train"]], "held_out": [files["held"]], "held_out_bytes": 12_000}
        settings |= {"vocabulary": "extend", "new_tokens": 2000, "distill": "240"}
        build(BuildRequest(options.source, "dutch", model, **settings))
    source = vt.open_checkpoint(options.source)
    if not is_hydra(folder):
        create_hydra(source, folder, own_name=OWN, link="copy")
        add_head_from_checkpoint(folder, NEW, vt.open_checkpoint(model), language="nl")
    return HydraForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def template(examples: Pairs) -> str:
    """Return the prompt: some pairs, then the text that is to be translated."""
    shown = "".join(f"English: {english}\nDutch: {dutch}\n\n" for english, dutch in examples)
    return shown.replace("{", "{{").replace("}", "}}") + "English: {text}\nDutch:"


def score(model: HydraForCausalLM, writer: str, prompt: str, test: Pairs) -> dict[str, Any]:
    """Translate with one head and compare."""
    english, dutch = [pair[0] for pair in test], [pair[1] for pair in test]
    begun = time.process_time()
    said = list(model.translate(english, source=OWN, target=writer, template=prompt, chat=False, batch_size=BATCH))
    seconds = time.process_time() - begun
    head = model.head(writer)
    written = sum(len(ids) for ids in head.encode([f" {text}" for text in said], special=False))
    return {
        "chrf": round(CHRF().corpus_score(said, [dutch]).score, 2),
        "tokens": written,
        "characters": sum(map(len, said)),
        "characters_a_token": round(sum(map(len, said)) / max(written, 1), 3),
        "cpu_seconds": round(seconds, 1),
        "examples": [{"english": e, "dutch": d, "answer": a} for (e, d), a in zip(test[:4], said, strict=False)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--source", required=True, help="a model that knows both languages: Gemma 3 270M here")
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and the Hydra")
    parser.add_argument("--test", type=int, default=100, help="sentences of each domain")
    parser.add_argument("--shots", type=int, default=4, help="examples in front of every sentence")
    parser.add_argument("--domains", nargs="+", default=["same", "other"], choices=["same", "other"])
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    trained, other = documents(options.corpora, TRAINED), documents(options.corpora, OTHER)
    examples = random.Random(1).sample(sentences(trained[HELD_OUT:]), options.shots)
    tests = {"same": sentences(trained[:HELD_OUT]), "other": sentences(other[:HELD_OUT])}
    facts: dict[str, Any] = {"source": Path(options.source).stem, "shots": options.shots, "domains": {}}
    with show_progress():
        model = hydra(options, trained)
        for domain in options.domains:
            test = random.Random(2).sample(tests[domain], min(options.test, len(tests[domain])))
            english, dutch = zip(*test, strict=True)
            found: dict[str, Any] = {"sentences": len(test)}
            found["copy"] = {"chrf": round(CHRF().corpus_score(list(english), [list(dutch)]).score, 2)}
            for writer in (OWN, NEW):
                found[writer] = score(model, writer, template(examples), test)
                print(domain, {name: value for name, value in found[writer].items() if name != "examples"}, flush=True)
            found["chrf_of_own"] = round(found[NEW]["chrf"] / found[OWN]["chrf"], 3)
            facts["domains"][domain] = found
            file = HERE / "results" / "few_shot.json"
            file.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
