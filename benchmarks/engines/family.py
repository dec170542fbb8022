"""One map for two sizes of a family: how many drafts of the small one the large one accepts.

Usage: python benchmarks/engines/family.py [--models DIR] [--layers 26]

The large size is SmolLM2 135M with README's Dutch vocabulary. No smaller SmolLM2 comes in packages, so the small size is
SmolLM2 with some of its middle layers taken out. It gets the Dutch vocabulary by `apply_map`, and drafts for the large
one in transformers' assisted generation. Beside it: the same draft with the vocabulary that it had (transformers then
turns its drafts into text and back). What is written must be what the large one writes alone. The table goes to
results/family.md.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import vocabtransfer as vt
from vocabtransfer.tokenization.save import save_tokenizer

HERE = Path(__file__).resolve().parent
HELD_OUT = HERE.parent.parent / "data" / "held_out"
PROMPTS, PROMPT_TOKENS, TOKENS = 12, 24, 48
HEAD = """# One map for two sizes

Made by `python benchmarks/engines/family.py`: {prompts} beginnings of Dutch text, {tokens} tokens each, greedy, in float32.
The target is SmolLM2 135M with a Dutch vocabulary; the draft is SmolLM2 with {layers} of its {all} layers. "Equal": texts
that are just what the target writes alone. "Runs": how often the target ran. "Accepted": tokens that needed no run of
their own.

| draft | equal | tokens | runs of the target | accepted |
|---|---:|---:|---:|---:|
"""


def shorter(source: Path, folder: Path, layers: int) -> int:
    """Write a model without some of its middle layers; return how many it had."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    count = len(model.model.layers)
    start = (count - (count - layers)) // 2
    kept = [layer for i, layer in enumerate(model.model.layers) if not start <= i < start + count - layers]
    model.model.layers = torch.nn.ModuleList(kept)
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]
    model.save_pretrained(folder)
    save_tokenizer(vt.load_tokenizer(source), folder)
    return count


def drafted(target: Any, prompts: list[torch.Tensor], **settings: Any) -> tuple[list[list[int]], int]:
    """Return what the target writes after each prompt, and how often it was run."""
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    hook = target.register_forward_hook(count)
    written = []
    with torch.inference_mode():
        for ids in prompts:
            out = target.generate(
                ids, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, pad_token_id=0, **settings
            )
            written.append(out[0, ids.shape[1] : ids.shape[1] + TOKENS].tolist())
    hook.remove()
    return written, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("build"))
    parser.add_argument("--layers", type=int, default=26)
    arguments = parser.parse_args()
    large = arguments.models / "smollm2-dutch"
    if not large.exists():
        vt.build(vt.BuildRequest(source="smollm2", target="dutch", output=large))
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "small", Path(scratch) / "small-dutch"
        count = shorter(vt.open_checkpoint("smollm2").path, before, arguments.layers)
        vt.apply_map(large, vt.open_checkpoint(str(before)), calibrate=False).save(after)
        same = (large / "tokenizer.json").read_bytes() == (after / "tokenizer.json").read_bytes()
        models = [
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (large, before, after)
        ]
        target, old, new = models
        tokenizer, old_tokenizer = (AutoTokenizer.from_pretrained(path) for path in (large, before))
    lines = [line for line in (HELD_OUT / "nl.txt").read_text(encoding="utf-8").splitlines() if len(line) > 150]
    prompts = [tokenizer(line, return_tensors="pt").input_ids[:, :PROMPT_TOKENS] for line in lines[:PROMPTS]]
    alone, _ = drafted(target, prompts)
    rows: dict[str, dict[str, int]] = {}
    for name, settings in (
        ("with the target's vocabulary, by the saved map", {"assistant_model": new}),
        (
            "with the vocabulary it had",
            {"assistant_model": old, "tokenizer": tokenizer, "assistant_tokenizer": old_tokenizer},
        ),
    ):
        written, runs = drafted(target, prompts, **settings)
        tokens = sum(map(len, written))
        equal = sum(one == other for one, other in zip(alone, written, strict=True))
        rows[name] = {"equal": equal, "tokens": tokens, "runs": runs, "accepted": tokens - runs}
        print(name, rows[name], flush=True)
    text = HEAD.format(prompts=len(prompts), tokens=TOKENS, layers=arguments.layers, all=count)
    for name, row in rows.items():
        share = row["accepted"] / row["tokens"]
        text += f"| {name} | {row['equal']} of {len(prompts)} | {row['tokens']} | {row['runs']} | {share:.0%} |\n"
    text += f"\n`tokenizer.json` of both is {'the same, byte for byte' if same else 'NOT the same'}.\n"
    results = HERE / "results"
    (results / "family.md").write_text(text, encoding="utf-8")
    (results / "family.json").write_text(
        json.dumps({"same_tokenizer": same, **rows}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
