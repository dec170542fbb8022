"""What one GPU makes in half an hour and a desk's CPU in days: trained leaderboard cells, the control, new tokens.

    python benchmarks/on_gpu.py --corpora FOLDER ... --gemma GEMMA.gguf --processes 15
    python benchmarks/on_gpu.py --corpora FOLDER ... --gemma GEMMA.gguf --print

The scripts that it starts write their results file by file and go on where they were stopped, so it may be stopped, and
started again. Updates of small models are bound by the time it takes to start kernels, not by the GPU: it pays to run as
many processes as there are cores, best under the multi-process service of NVIDIA. What a run says is in a file in ``LOGS``,
how long it took in ``LOGS/times``.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent
LOOKED_AT, OTHERS = ("nl", "ru", "tr", "tt"), ("ka", "et", "af", "ms", "cs")
METHODS = ("auto", "pieces+calibrate", "pieces_characters+calibrate", "trans_tokenization+calibrate", "inner_lexicon")
EXTENDED = "auto:extend,bpe_dropout=0.3,table_rate=5"
#: What may let a new vocabulary learn from little text: the source's pieces some of the time, and fewer tokens.
#: Two are questions that a desk left open: the plain rate, and whether the own vocabulary gains by another as well.
VARIANTS = (
    "auto:table_rate=1",
    "own:table_rate=5",
    "auto:bpe_dropout=0.3,table_rate=5",
    "auto:extend=1000",
    "auto:after=300",
    "auto:extend,after=300",
)


def commands(arguments: argparse.Namespace) -> list[list[str]]:
    """Return the runs, the longest first."""
    folders = [str(folder) for folder in arguments.corpora]
    device = ["--device", arguments.device]

    def cell(source: str, language: str, shape: str) -> list[str]:
        size = ["--updates", "50", "200", "--batch-tokens", "512", "--bytes", "20000"]
        where = ["--languages", language, "--sources", source, "--shapes", shape]
        script = ["leaderboard/sources.py", "--corpora", *folders]
        return [*script, *where, *size, "--methods", *METHODS, "--distill", "1000", *device]

    def control(source: str, language: str, start: str, *rates: str) -> list[str]:
        folder = arguments.logs / re.sub(r"[^\w.]+", "-", f"{Path(source).stem}-{language}-{start}")
        where = ["--language", language, "--source", source, "--starts", start, "--work", str(folder)]
        return ["training/control.py", "--corpora", *folders, *where, "--rates", *rates, *device]

    gemma, smollm2 = str(arguments.gemma), "smollm2"
    found = [control(gemma, *pair, "1e-4", "3e-4") for pair in product(("nl", "tt"), ("own", EXTENDED))]
    new = ["--languages", "nl", "--source", gemma, "--methods", "pieces", "inner_lexicon", "auto", "--distill", "1000"]
    found.append(["new_tokens/run.py", "--corpora", *folders, *new, *device])
    starts = product(("nl", "tt", "hi"), ("own", "auto:table_rate=5", EXTENDED))
    found += [control(smollm2, *pair, "1e-4", "3e-4") for pair in starts]
    for languages in (LOOKED_AT, OTHERS):
        found += [cell(*each) for each in product((gemma, smollm2), languages, ("replace", "extend"))]
    return found + [control(smollm2, "tt", start, "3e-4") for start in VARIANTS]


def run(number: int, command: list[str], logs: Path) -> None:
    """Run one and keep what it says; its log is told from others by its number in what ``--print`` shows."""
    name = f"{number:02}-{Path(command[0]).stem}"
    started = time.time()
    with (logs / f"{name}.log").open("w", encoding="utf-8") as log:
        one = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        whole = [sys.executable, str(HERE / command[0]), *command[1:]]
        done = subprocess.run(whole, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **one}, check=False)
    with (logs / "times").open("a", encoding="utf-8") as times:
        times.write(f"{time.time() - started:.0f} s, ended with {done.returncode}: {' '.join(command)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, nargs="+", required=True, help="folders with en-XX.tsv.xz files")
    parser.add_argument("--gemma", type=Path, required=True, help="the GGUF file of Gemma 3 270M")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--logs", type=Path, default=Path("build/on-gpu"))
    parser.add_argument("--print", action="store_true", help="only say what would be run")
    arguments = parser.parse_args()
    found = commands(arguments)
    if arguments.print:
        print("\n".join(" ".join(command) for command in found))
        return
    arguments.logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.processes) as pool:
        list(pool.map(lambda each: run(*each, arguments.logs), enumerate(found, 1)))


if __name__ == "__main__":
    main()
