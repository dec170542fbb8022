"""One body with five vocabularies against five models: disk, memory, switching, speed, and batches of several languages.

    python benchmarks/hydra/run.py --work build/hydra                        # builds what is missing there, then measures
    python benchmarks/hydra/run.py --work build/hydra --build-only           # so that a quiet hour is spent on measuring
    python benchmarks/hydra/run.py --languages dutch --rounds 2 --tokens 8   # a quick look, in a folder for the moment

SmolLM2 keeps its English head and gets heads from the alignment tables that ship. Memory is measured in processes of
their own, speeds in one process by turns (A B, B A, ...), so that what else the machine does falls on both sides alike;
figures are medians over rounds, ratios are medians of the rounds' ratios, in wall-clock and in CPU time.
"""

import argparse
import gc
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import vocabtransfer as vt
from vocabtransfer.hydra import HydraForCausalLM, add_head, create_hydra, is_hydra, list_heads, open_hydra
from vocabtransfer.pipeline.build import default_vocab_size
from vocabtransfer.serving import Engine, Event, Job, Limits, Sampling
from vocabtransfer.surgery.evidence import target_words

LANGUAGES = ("dutch", "russian", "turkish", "tatar")
PROMPTS = {
    "english": "The library opens in the morning and",
    "dutch": "De bibliotheek gaat in de ochtend open en",
    "russian": "Библиотека открывается утром и",
    "turkish": "Kütüphane sabah açılıyor ve",
    "tatar": "Китапханә иртән ачыла һәм",
}
SWITCHES = 300


def build(work: Path, languages: list[str]) -> dict[str, Any]:
    """Build what is not there yet: the Hydra, and a standalone model for each head. Returns CPU seconds and sizes."""
    source = vt.open_checkpoint("smollm2")
    kept = work / "build.json"
    facts: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    if not is_hydra(work / "hydra"):
        work.mkdir(parents=True, exist_ok=True)
        create_hydra(source, work / "hydra", own_name="english", link="copy")
        create_hydra(source, work / "english", own_name="english", link="copy")
    for name in languages:
        if name in open_hydra(work / "hydra").names() and (work / name).is_dir():
            continue
        started = time.process_time()
        language = vt.find_language(name)
        table = vt.shipped_table(language)
        assert table is not None
        words = {word: round(count) for word, count in target_words(table).items() if round(count)}
        tokenizer = vt.train_tokenizer(words, like=source.tokenizer, vocab_size=default_vocab_size(target_words(table)))
        result = vt.transfer(source, tokenizer, vt.Evidence(alignment=table))
        made = time.process_time()
        if name not in open_hydra(work / "hydra").names():
            add_head(work / "hydra", name, result, language=language.tag)
        added = time.process_time()
        result.save(work / name, link="copy", overwrite=True)
        facts[name] = {"make_cpu_seconds": round(made - started, 1), "add_cpu_seconds": round(added - made, 2)}
        facts[name]["save_standalone_cpu_seconds"] = round(time.process_time() - added, 2)
        kept.write_text(json.dumps(facts, indent=2))
    for info in list_heads(work / "hydra"):
        facts.setdefault(info.name, {}).update({"vocabulary": info.vocabulary, "head_bytes": info.bytes})
    return facts


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def disk(work: Path, names: list[str]) -> dict[str, Any]:
    hydra, models = size(work / "hydra"), sum(size(work / name) for name in names)
    return {"hydra_bytes": hydra, "five_models_bytes": models, "ratio": hydra / models}


def memory_of(way: str, work: Path, names: list[str]) -> dict[str, Any]:
    """Load everything in this process, use each head once, and say what that took beyond torch itself."""
    process = psutil.Process()
    gc.collect()
    before = process.memory_full_info()
    if way == "hydra":
        model = load_hydra(work)
        for name in names:
            with torch.inference_mode():
                model(model.encode([(name, PROMPTS[name])])["input_ids"] * 0, head=name)
        kept: Any = model
        parameters = sum(p.numel() * p.element_size() for p in model.parameters()) + model.head_bytes
    else:
        kept = [load_plain(work, name) for name in names]
        for model in kept:
            with torch.inference_mode():
                model(torch.zeros((1, 8), dtype=torch.long))
        parameters = sum(p.numel() * p.element_size() for model in kept for p in model.parameters())
    gc.collect()
    after = process.memory_full_info()
    return {
        "parameter_bytes": parameters,
        "resident_bytes": after.rss - before.rss,
        "own_bytes": after.uss - before.uss,
    }


def memory(work: Path, names: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for way in ("hydra", "models"):
        command = [sys.executable, __file__, "--memory-of", way, "--work", str(work), "--languages", *names[1:]]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result[way] = json.loads(done.stdout.splitlines()[-1])
    result["ratio"] = result["hydra"]["resident_bytes"] / result["models"]["resident_bytes"]
    return result


def load_hydra(work: Path) -> HydraForCausalLM:
    return HydraForCausalLM.from_pretrained(work / "hydra", dtype=torch.float32)


def load_plain(work: Path, name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(work / name, dtype=torch.float32).eval()


def switching(model: HydraForCausalLM, names: list[str]) -> dict[str, Any]:
    """Time loading a head for the first time, switching between loaded ones, and to pairs not used before."""
    first = {name: timed(lambda name=name: model.set_head(name)) for name in names}
    loaded = [timed(lambda name=name: model.set_head(name)) for _ in range(SWITCHES) for name in names]
    pairs = [timed(lambda a=a, b=b: model.set_head(input=a, output=b)) for a in names for b in names if a != b]
    model.set_head(names[0])
    loaded.sort()
    return {
        "first_use_ms": {name: seconds * 1e3 for name, seconds in first.items()},
        "loaded_ms_median": statistics.median(loaded) * 1e3,
        "loaded_ms_99th": loaded[int(len(loaded) * 0.99)] * 1e3,
        "new_pair_ms_median": statistics.median(pairs) * 1e3 if pairs else None,
    }


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass
class Times:
    """What one way took in each round, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], Any]) -> None:
        started = time.process_time()
        self.wall.append(timed(work))
        self.cpu.append(time.process_time() - started)


def alternate(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Times]:
    """Time each way once a round, in turns and turning the order round, after a warm-up."""
    for work in ways.values():
        work()
    times = {name: Times() for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            times[name].add(ways[name])
    return times


def compared(times: dict[str, Times], first: str, second: str) -> dict[str, float]:
    """Return how many times as fast the first way is as the second."""

    def ratio(one: list[float], other: list[float]) -> float:
        return round(statistics.median(b / a for a, b in zip(one, other, strict=True)), 4)

    return {"wall": ratio(times[first].wall, times[second].wall), "cpu": ratio(times[first].cpu, times[second].cpu)}


def speed(model: HydraForCausalLM, work: Path, names: list[str], tokens: int, rounds: int) -> dict[str, Any]:
    """Tokens per second with a head of the Hydra and with the standalone model of the same vocabulary."""
    result: dict[str, Any] = {}
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    for name in (names[0], names[-1]):
        plain = load_plain(work, name)
        ids = model.tokenizer(name)(PROMPTS[name], return_tensors="pt")["input_ids"]
        same = torch.equal(model.generate(ids, head=name, **settings), plain.generate(ids, **settings))
        ways = {
            "hydra": lambda ids=ids, name=name: model.generate(ids, head=name, **settings),
            "plain": lambda ids=ids, plain=plain: plain.generate(ids, **settings),
        }
        times = alternate(ways, rounds)
        result[name] = {
            "same_tokens": same,
            **{f"{way}_tokens_per_second": tokens / statistics.median(times[way].wall) for way in ways},
            "hydra_over_plain": compared(times, "hydra", "plain"),
        }
        del plain, ways
        gc.collect()
    return result


def mixed(model: HydraForCausalLM, names: list[str], each: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Requests in all languages: all in one batch, one batch a language, one after the other, and through the server."""
    rows = [[(name, PROMPTS[name])] for _ in range(each) for name in names]
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}

    def run(batches: list[list[Any]]) -> None:
        for batch in batches:
            model.generate(**model.encode(batch), **settings)

    engine = Engine(model, Limits(rows=len(rows)))

    def serve() -> None:
        """As many clients as requests, at the same time; the engine stops at end tokens as well."""
        events: queue.Queue[Event] = queue.Queue()
        for (name, text), *_ in rows:
            head = model.head(name)
            prompt = head.encode([text], special=True)[0]
            engine.submit(Job(head, head, prompt, Sampling(tokens, temperature=0.0), events.put))
        left = len(rows)
        while left:
            left -= events.get(timeout=600).last

    ways = {
        "one_mixed_batch": lambda: run([rows]),
        "a_batch_each_head": lambda: run([[row for row in rows if row[0][0] == name] for name in names]),
        "one_by_one": lambda: run([[row] for row in rows]),
    }
    times = alternate(ways, rounds)
    count = len(rows) * tokens
    result: dict[str, Any] = {"requests": len(rows), "tokens_each": tokens}
    result |= {f"{way}_tokens_per_second": count / statistics.median(times[way].wall) for way in ways}
    for way in ("a_batch_each_head", "one_by_one"):
        result[f"mixed_over_{way}"] = compared(times, "one_mixed_batch", way)
    serve()
    made, served = engine.row_steps, Times()
    for _ in range(rounds):
        served.add(serve)
    made = (engine.row_steps - made) // rounds + len(rows)  # first tokens come of reading the prompts
    engine.close()
    result["engine_tokens"] = made
    result["engine_tokens_per_second"] = made / statistics.median(served.wall)
    return result


def run(arguments: argparse.Namespace, work: Path) -> None:
    names = ["english", *arguments.languages]
    built = build(work, arguments.languages)
    if arguments.build_only:
        return
    results: dict[str, Any] = {
        "machine": {"threads": torch.get_num_threads(), "load": psutil.getloadavg()[0], "torch": torch.__version__},
        "dtype": "float32",
        "build": built,
        "disk": disk(work, names),
        "memory": memory(work, names),
    }
    model = load_hydra(work)
    results["switch"] = switching(model, names)
    results["speed"] = speed(model, work, names, arguments.tokens, arguments.rounds)
    results["mixed"] = mixed(model, names, arguments.each, arguments.tokens // 2, max(1, arguments.rounds // 2))
    results["machine"]["load_after"] = psutil.getloadavg()[0]
    text = json.dumps(results, indent=2)
    print(text)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for the Hydra and the models [default: one for the moment]")
    parser.add_argument("--build-only", action="store_true", help="build the models and stop")
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64, help="tokens a generation")
    parser.add_argument("--each", type=int, default=2, help="requests in each language of the mixed batch")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "hydra.json")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if arguments.memory_of:
        print(json.dumps(memory_of(arguments.memory_of, arguments.work, ["english", *arguments.languages])))
    elif arguments.work is not None:
        run(arguments, arguments.work)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            run(arguments, Path(scratch))


if __name__ == "__main__":
    main()
