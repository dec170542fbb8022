"""The whole chain of a trans-tokenization, beside the published package: seconds and peak memory of every stage.

    python benchmarks/pipeline/run.py --parallel en-nl.tsv.xz en-ru.tsv.xz --pairs 200000
    python benchmarks/pipeline/run.py --parallel ... --peer build/peer-venv/bin/python

The corpus is the first N pairs of all files together (English in the column before the last, the target in the last). A
tokenizer of 32,000 tokens is trained on each side, the source model is a Llama of random weights, one layer and hidden
size 4,096 with two tables. That is done once, under --folder. Then each side runs in a process of its own, on the same
files: read the corpus, align it, map the tokens, fill those without translation (smooth), write the checkpoint (remap).
--peer is a Python that has trans-tokenizers; its steps and timings are those of ../trans_tokenizers_peer.py, and its
environment is made as that file says. CPU seconds are steadier than seconds where other work shares the cores.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
T = TypeVar("T")


def first_pairs(paths: list[Path], count: int) -> Iterator[tuple[str, str]]:
    from vocabtransfer.files.text_files import read_lines

    rows = (line.split("\t") for path in paths for _, line in read_lines(path))
    return islice(((row[-2], row[-1]) for row in rows if len(row) > 1 and row[-2] and row[-1]), count)


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Make corpus, tokenizers and source model, once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.files.text_files import write_lines
    from vocabtransfer.tokenization.load import load_tokenizer
    from vocabtransfer.tokenization.save import save_tokenizer
    from vocabtransfer.tokenization.train import train_tokenizer

    corpus = folder / "corpus.tsv"
    if not corpus.exists():
        write_lines(
            corpus, (f"{source}\t{target}\n" for source, target in first_pairs(options.parallel, options.pairs))
        )
    for column, name in enumerate(("source", "target")):
        if not (folder / f"{name}-tokenizer").exists():
            text = [line.split("\t")[column] for line in corpus.read_text(encoding="utf-8").splitlines()]
            like = open_checkpoint("smollm2").tokenizer
            made = train_tokenizer(text, like=like, vocab_size=options.tokens)
            save_tokenizer(made, folder / f"{name}-tokenizer")
    if not (folder / "source").exists():
        tokenizer = load_tokenizer(folder / "source-tokenizer")
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=options.hidden, intermediate_size=256, num_hidden_layers=1,
            num_attention_heads=32, num_key_value_heads=4, tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "unfinished")
        save_tokenizer(tokenizer, folder / "unfinished")
        (folder / "unfinished").rename(folder / "source")


class Stages:
    """Wall and CPU seconds and peak resident memory of one stage after the other."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def run(self, name: str, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        fresh = _forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments, **options)
        self.rows[name] = {
            "seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_mb" if fresh else "peak_mb_so_far": _peak_mb(),
        }
        return result


def _forget_peak() -> bool:
    """Reset the peak that Linux keeps of this process; False where it cannot be."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_mb() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def ours(folder: Path) -> dict[str, Any]:
    stages = Stages()
    wall, cpu = time.perf_counter(), time.process_time()

    def load() -> tuple[Any, Any]:
        from vocabtransfer.checkpoint import open_checkpoint
        from vocabtransfer.tokenization.load import load_tokenizer

        source = open_checkpoint(folder / "source")
        return source, load_tokenizer(folder / "target-tokenizer")

    def read() -> list[tuple[str, str]]:
        from vocabtransfer.alignment.corpora import read_parallel

        return list(read_parallel([folder / "corpus.tsv"]))

    def align(pairs: list[tuple[str, str]]) -> Any:
        from vocabtransfer.alignment.aligner import align_corpus

        return align_corpus(pairs)

    def count(table: Any) -> Any:
        from vocabtransfer.alignment.links import token_counts
        from vocabtransfer.tokenization.pieces import PieceEncoder

        return token_counts(table, PieceEncoder(source.tokenizer), PieceEncoder(tokenizer))

    def transfer(table: Any) -> Any:
        from vocabtransfer.surgery.evidence import Evidence
        from vocabtransfer.surgery.transfer import transfer

        return transfer(source, tokenizer, Evidence(alignment=table), method="trans_tokenization", calibrate=False)

    source, tokenizer = stages.run("load", load)
    table = stages.run("align", align, stages.run("corpus", read))
    result = stages.run("map and smooth", transfer, table)
    stages.run("remap", result.save, folder / "ours", overwrite=True)
    seconds, used = round(time.perf_counter() - wall, 1), round(time.process_time() - cpu, 1)
    peak = max(value for row in stages.rows.values() for name, value in row.items() if name.startswith("peak"))
    # A part of "map and smooth", measured once more on its own and not in the sum.
    counts = stages.run("token counts alone", count, table)
    return {
        "tool": "vocabtransfer",
        "seconds": seconds,
        "cpu_seconds": used,
        "peak_mb": peak,
        "stages": stages.rows,
        "word_pairs": int(table.counts.nnz),
        "token_pairs": int(counts.nnz),
        "tokens_with_translation": int((counts.sum(axis=1) > 0).sum()),
        "tokens": counts.shape[0],
    }


def peer(python: Path, folder: Path) -> dict[str, Any]:
    script = HERE.parent / "trans_tokenizers_peer.py"
    words = ["--source", folder / "source", "--tokenizer", folder / "target-tokenizer"]
    words += ["--parallel", folder / "corpus.tsv", "--output", folder / "peer"]
    if (folder / "peer").exists():
        shutil.rmtree(folder / "peer")  # what an earlier run of this script left
    settings = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([python, script, *words], check=True, env=os.environ | settings)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = json.loads((folder / "peer" / "peer.json").read_text())
    return {
        "tool": facts["package"],
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mb": used.ru_maxrss // 1000,
        "stages": {name: {"seconds": seconds} for name, seconds in facts["seconds"].items()},
        "tokens_with_translation": facts["tokens_mapped_by_alignment"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parallel", type=Path, nargs="+", help="files with English and target in the last two columns"
    )
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--tokens", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "build" / "pipeline")
    parser.add_argument("--peer", type=Path, help="a Python that has trans-tokenizers")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "pipeline.json")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(options.ours)))
        return
    if not options.parallel:
        parser.error("--parallel names the corpus files.")
    folder = options.folder.resolve() / f"{options.pairs}-{options.tokens}-{options.hidden}"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(options, folder)
    command = [sys.executable, __file__, "--ours", folder]
    run = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    facts = {
        "pairs": options.pairs,
        "tokens": options.tokens,
        "hidden": options.hidden,
        "files": [path.name for path in options.parallel],
        "cores": os.cpu_count(),
        "runs": [json.loads(run.stdout.splitlines()[-1])],
    }
    save(facts, options.output)
    if options.peer:
        facts["runs"].append(peer(options.peer.absolute(), folder))
        mine, theirs = facts["runs"]
        facts["peer_is_times"] = {
            name: round(theirs[name] / mine[name], 1) for name in ("seconds", "cpu_seconds", "peak_mb")
        }
        save(facts, options.output)


def save(facts: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1), flush=True)


if __name__ == "__main__":
    main()
