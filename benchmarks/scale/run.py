"""What the streamed runner costs at real sizes: time by stage, memory, and the share of the machine's limits.

Checkpoints have the shapes of real models and random weights. Everything is measured in one process that may use
``--memory`` GB; the limits are measured in the same run: how fast the disk gives the files (read once through, page
cache dropped where the system allows it), and how fast one product runs in that precision.

    python benchmarks/scale/run.py --model llama3-8b --folder /some/large/disk --tokens 1500
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from keeping import store
from transformers import AutoConfig

from vocabtransfer.checkpoint import read_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.running.plan import open_planned, plan_run
from vocabtransfer.running.streamed import run_together, stream_of
from vocabtransfer.tokenization.save import save_tokenizer

COMMON = {"dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
MODELS: dict[str, dict[str, Any]] = {
    "llama3-8b": {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096},
        **{"intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
        **{"max_position_embeddings": 8192, "rope_theta": 500000.0, "tie_word_embeddings": False, **COMMON},
    },
    "llama3-70b": {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 8192},
        **{"intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
        **{"max_position_embeddings": 8192, "rope_theta": 500000.0, "tie_word_embeddings": False, **COMMON},
    },
    "qwen3-30b-a3b": {
        **{"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 151936},
        **{"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32},
        **{"num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8},
        **{"moe_intermediate_size": 768, "norm_topk_prob": True, "tie_word_embeddings": False, **COMMON},
    },
    "gemma3-27b": {
        **{"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "vocab_size": 262208},
        **{"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32},
        **{"num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024, "tie_word_embeddings": True, **COMMON},
    },
    "small": {
        **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 1024},
        **{"intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 4},
        **{"max_position_embeddings": 4096, "tie_word_embeddings": False, **COMMON},
    },
}


def make_checkpoint(name: str, folder: Path, layers: int | None) -> Path:
    config = dict(MODELS[name])
    if layers:
        config["num_hidden_layers"] = layers
    path = folder / f"{name}-{config['num_hidden_layers']}"
    if not (path / "tokenizer.json").is_file():
        write_hollow_checkpoint(path, config, shard_bytes=5_000_000_000, seed=1)
        save_tokenizer(toy_tokenizer([f"word{i}" for i in range(200)]), path)
    return path


class Peak:
    """The largest private memory of this process while it ran: pages of mapped files can be dropped any time."""

    def __init__(self) -> None:
        self.private = self.resident = 0
        self._on = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        process = psutil.Process()
        while self._on:
            memory = process.memory_info()
            self.private = max(self.private, memory.rss - memory.shared)
            self.resident = max(self.resident, memory.rss)
            time.sleep(0.05)

    def stop(self) -> None:
        self._on = False
        self._thread.join()


def product_rate(dtype: torch.dtype = torch.float32) -> float:
    """FLOP a second of one product of the size that a layer makes."""
    left, right = torch.randn(512, 4096).to(dtype), torch.randn(4096, 4096).to(dtype)
    best = 0.0
    for _ in range(5):
        begun = time.perf_counter()
        _ = left @ right
        best = max(best, 2 * 512 * 4096 * 4096 / (time.perf_counter() - begun))
    return best


def read_rate(path: Path) -> float:
    """Bytes a second that the files can be read at, as they lie now (partly in the page cache, as for the run)."""
    begun, count = time.perf_counter(), 0
    buffer = bytearray(1 << 24)
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while got := stream.readinto(buffer):
                count += got
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--layers", type=int, help="fewer layers than the real model has")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--memory", type=float, default=6.0, help="GB that may be used")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--generate", type=int, default=2, help="tokens to generate in the end")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    path = make_checkpoint(options.model, options.folder, options.layers)
    checkpoint = read_checkpoint(path, options.model)
    plan = plan_run(checkpoint, dtype=options.dtype, memory=int(options.memory * 1e9))
    print(plan.sentence(), flush=True)
    config = AutoConfig.from_pretrained(path)
    disk, flops = read_rate(path), product_rate(plan.dtype)
    peak = Peak()
    begun = time.perf_counter()
    model = open_planned(checkpoint, plan)
    opened = time.perf_counter() - begun
    chunks = [torch.randint(3, 400, (1, 50)) for _ in range(options.tokens // 50)]
    begun = time.perf_counter()
    run_together(model, [lambda ids=ids: model.base_model(input_ids=ids, use_cache=False)[0] for ids in chunks])
    passed = time.perf_counter() - begun
    begun = time.perf_counter()
    model.generate(chunks[0][:, :8], max_new_tokens=options.generate, do_sample=False, pad_token_id=2)
    generated = time.perf_counter() - begun
    peak.stop()
    body = checkpoint.parameters - sum(
        info.shape[0] * info.shape[1] for name, info in checkpoint.tensors.items() if info.shape[0] == config.vocab_size
    )
    active = body
    if "num_experts" in MODELS[options.model]:
        experts = sum(
            info.shape[0] * info.shape[1] * (info.shape[2] if len(info.shape) > 2 else 1)
            for name, info in checkpoint.tensors.items()
            if "experts" in name
        )
        active = body - experts + experts * config.num_experts_per_tok // config.num_experts
    stream = stream_of(model)
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    compute, reading = 2 * active * options.tokens / flops, stored / disk
    row = {
        "model": path.name,
        "parameters": checkpoint.parameters,
        "stored_gb": round(stored / 1e9, 2),
        "streamed": stream is not None,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        "tokens": options.tokens,
        "open_s": round(opened, 1),
        "pass_s": round(passed, 1),
        "generate_s": round(generated, 1),
        "generated": options.generate,
        "peak_private_gb": round(peak.private / 1e9, 2),
        "peak_resident_gb": round(
            max(peak.resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e9, 2
        ),
        "limit_compute_s": round(compute, 1),
        "limit_reading_s": round(reading, 1),
        "share_of_limit": round(max(compute, reading) / passed, 3),
        "gflop_s": round(flops / 1e9, 1),
        "disk_gb_s": round(disk / 1e9, 2),
    }
    store(f"{path.name}-{options.dtype}.json", row)


if __name__ == "__main__":
    main()
