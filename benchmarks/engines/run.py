"""Put models into a real llama.cpp and compare it with transformers: ids, perplexity, greedy continuations.

Usage: python benchmarks/engines/run.py [--models DIR] [--gemma FILE.gguf] [--only NAME ...]

Models are built by README's commands into ``--models`` when they are not there. A model with random weights stands for
the tokenizers of Llama 3 (npm) and Mistral (mistral-common). The table goes to results/engines.md, the figures beside it.
Needs the extra `engines`, or VOCABTRANSFER_LLAMA_CPP (see llama_engine.py).
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tests")]

import torch
from conftest import _tokenizer_folder
from engine_samples import TEXTS
from llama_engine import LlamaCpp
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

import vocabtransfer as vt
from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.tokenization.load import load_tokenizer

RESULTS = HERE / "results" / "engines.json"
HELD_OUT = HERE.parent.parent / "data" / "held_out"
WINDOW, WINDOWS, GREEDY = 256, 4, 32
PROMPTS = 4
HEAD = """# In a real llama.cpp

Made by `python benchmarks/engines/run.py` with llama.cpp {version}, against transformers in float32. "ids": of {texts} texts
in over twenty scripts, code, emoji and white space, how many get the same ids with and without added ends. "f16" and
"auto" are types of the file; "auto" keeps the quantised body of a GGUF source. Perplexity: of {tokens} tokens of text, the
difference in per cent. Continuations: of {prompts} beginnings, how many go on with the same {greedy} tokens.

| model | tokenizer in the file | ids | perplexity | f16 | auto | continuations f32 | f16 | MB f16 | MB auto | kept |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""


@dataclass
class Row:
    """What one model showed."""

    name: str
    tokenizer: str
    ids: int
    perplexity: float
    f16: float
    auto: float
    greedy_f32: int
    greedy_f16: int
    size_f16: int
    size_auto: int
    kept: int
    tensors: int
    version: str
    sample: str
    differing: list[str]


def main() -> None:
    arguments = _arguments()
    done = {row["name"]: row for row in (json.loads(RESULTS.read_text()) if RESULTS.is_file() else [])}
    for name, text in CASES.items():
        if arguments.only and name not in arguments.only:
            continue
        model = _model(name, arguments)
        if model is None:
            print(f"{name}: left out", flush=True)
            continue
        row = measure(name, model, text)
        done[name] = asdict(row)
        print(json.dumps(done[name], ensure_ascii=False), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([done[key] for key in CASES if key in done], indent=1, ensure_ascii=False) + "\n")
        RESULTS.with_suffix(".md").write_text(table([done[key] for key in CASES if key in done]))


# Each model, and the language of the text that it is scored on.
CASES = {
    "SmolLM2-135M, untouched": "de",
    "SmolLM2-135M, Dutch": "nl",
    "SmolLM2-135M, Tatar": "tt",
    "Gemma 3 270M, untouched": "nl",
    "Gemma 3 270M, 6,000 Dutch tokens more": "nl",
    "Llama 3's tokenizer, random body": "hi",
    "Mistral's tokenizer, random body": "ru",
}


def _model(name: str, arguments: argparse.Namespace) -> str | Path | None:
    folder = arguments.models / "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    if name == "SmolLM2-135M, untouched":
        return "smollm2"
    if name.startswith("Gemma") and arguments.gemma is None:
        return None
    if name == "Gemma 3 270M, untouched":
        return arguments.gemma
    if not folder.is_dir():
        if name.startswith("SmolLM2"):
            vt.build(vt.BuildRequest(source="smollm2", target=name.rsplit(" ", 1)[1].lower(), output=folder))
        elif name.startswith("Gemma"):
            settings: dict[str, Any] = {"vocabulary": "extend", "new_tokens": 6000, "method": "pieces"}
            vt.build(vt.BuildRequest(source=str(arguments.gemma), target="dutch", output=folder, **settings))
        else:
            _random_body("llama3" if name.startswith("Llama") else "mistral_v1", folder)
    return folder


def _random_body(tokenizer_name: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as parent:
        tokenizer = load_tokenizer(_tokenizer_folder(tokenizer_name, Path(parent)))
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.1, **sizes)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(name: str, model: str | Path, language: str) -> Row:
    source = open_checkpoint(model)
    reference = AutoModelForCausalLM.from_pretrained(source.path, dtype=torch.float32).eval()
    windows, prompts = _samples(source, (HELD_OUT / f"{language}.txt").read_text())
    nats = sum(_nats(reference, ids) for ids in windows)
    count = sum(len(ids) - 1 for ids in windows)
    expected = [_greedy(reference, ids) for ids in prompts]
    del reference
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("f32", "f16", "auto"):
            report = vt.export_gguf(model, Path(folder) / "model.gguf", kind=kind, overwrite=True)
            with LlamaCpp(report.path) as engine:
                found[kind] = {
                    "report": report,
                    "nats": sum(engine.nats(ids) for ids in windows) if kind != "f32" else math.nan,
                    "greedy": sum(
                        engine.continue_greedily(p, GREEDY) == e for p, e in zip(prompts, expected, strict=True)
                    ),
                }
                if kind == "f16":
                    same = [_same_ids(engine, source, text) for text in TEXTS]
                    sample = engine.detokenize([*prompts[0], *engine.continue_greedily(prompts[0], GREEDY)])
                    version = engine.version
    f16, auto = found["f16"]["report"], found["auto"]["report"]
    return Row(
        name=name,
        tokenizer=f16.tokenizer if f16.pre_tokenizer == "default" else f"{f16.tokenizer}, {f16.pre_tokenizer}",
        ids=sum(same),
        perplexity=math.exp(nats / count),
        f16=math.expm1((found["f16"]["nats"] - nats) / count),
        auto=math.expm1((found["auto"]["nats"] - nats) / count),
        greedy_f32=found["f32"]["greedy"],
        greedy_f16=found["f16"]["greedy"],
        size_f16=f16.size,
        size_auto=auto.size,
        kept=auto.kept,
        tensors=auto.tensors,
        version=version,
        sample=sample,
        differing=[text for text, equal in zip(TEXTS, same, strict=True) if not equal],
    )


def _samples(source: Checkpoint, text: str) -> tuple[list[list[int]], list[list[int]]]:
    ids = source.tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = (
        [source.tokenizer.bos_token_id]
        if source.tokenizer("a")["input_ids"][0] == source.tokenizer.bos_token_id
        else []
    )
    width = WINDOW - len(bos)
    windows = [[*bos, *ids[i * width : (i + 1) * width]] for i in range(WINDOWS)]
    return windows, [[*bos, *ids[i * width : i * width + 12]] for i in range(PROMPTS)]


def _nats(model: Any, ids: list[int]) -> float:
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum"))


def _greedy(model: Any, ids: list[int]) -> list[int]:
    plain = GenerationConfig(max_new_tokens=GREEDY, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return model.generate(torch.tensor([ids]), generation_config=plain)[0, len(ids) :].tolist()


def _same_ids(engine: LlamaCpp, source: Checkpoint, text: str) -> bool:
    ends = engine.tokenize(text) == source.tokenizer(text)["input_ids"]
    return (
        ends and engine.tokenize(text, specials=False) == source.tokenizer(text, add_special_tokens=False)["input_ids"]
    )


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["tokenizer"],
        f"{row['ids']} of {len(TEXTS)}",
        f"{row['perplexity']:,.2f}",
        *(f"{100 * row[kind]:+.3f} %" for kind in ("f16", "auto")),
        *(f"{row[key]} of {PROMPTS}" for key in ("greedy_f32", "greedy_f16")),
        *(f"{row[key] / 1e6:,.0f}" for key in ("size_f16", "size_auto")),
        f"{row['kept']} of {row['tensors']}",
    ]


def table(rows: list[dict[str, Any]]) -> str:
    head = HEAD.format(
        version=rows[0]["version"],
        texts=len(TEXTS),
        tokens=f"{WINDOWS * (WINDOW - 1):,}",
        prompts=PROMPTS,
        greedy=GREEDY,
    )
    lines = ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    samples = [f"- {r['name']}: {r['sample']!r}" for r in rows if "random" not in r["name"]]
    return (
        head
        + "\n".join(lines)
        + "\n\nWhat llama.cpp made of the first beginning (f16):\n\n"
        + "\n".join(samples)
        + "\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("build/engines"))
    parser.add_argument("--gemma", type=Path, help="Gemma 3 270M as a GGUF file (see tests/conftest.py)")
    parser.add_argument("--only", nargs="*")
    return parser.parse_args()


if __name__ == "__main__":
    main()
