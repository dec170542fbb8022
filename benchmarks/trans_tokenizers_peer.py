"""Run the published trans-tokenizers package on our corpus and our pair of tokenizers, as a peer in the quality table.

    python benchmarks/trans_tokenizers_peer.py --source MODEL --tokenizer FOLDER --parallel TSV --output FOLDER

MODEL is a checkpoint folder, FOLDER a target tokenizer, TSV has lines of English<TAB>target (plain, .gz or .xz). The
output is the peer's checkpoint, which `vocabtransfer evaluate` scores like any other; `peer.json` in it holds timings,
`links.tsv` the word pairs that its rows were made from.

The package runs unchanged, as its README says, in an environment of its own under build/ (it does not work with
transformers 5). Two things around it are ours:

- The corpus. The package streams OpenSubtitles and NLLB from a hub; its reader is pointed at the TSV instead.
- fast_align. The package calls a fork of it (`-I 7 -p`) that no registry carries; this file stands in for the binary.
  The fork's default is IBM model 1 with an empty source word, and the file it writes has the expected counts of the
  sixth E-step: the same numbers in numpy below.
"""

import argparse
import gzip
import importlib.util
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

PEER = "trans-tokenizers==0.1.4"
PINS = [PEER, "transformers==4.57.1", "torch==2.13.0", "numpy<3", "regex", "accelerate"]
LINKS = "links.tsv"
ENVIRONMENT = Path(__file__).resolve().parents[1] / "build" / "peer-venv"


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 2:
                sys.exit(f"{path}, line {number}: two columns are needed, English and target, not {len(fields)}.")
            if fields[0].strip() and fields[1].strip():
                yield fields[0], fields[1]


def link_for_transformers_4(folder: Path, link: Path) -> None:
    """Link a folder's files, rewriting what transformers 5 writes in a way that version 4 refuses or passes over."""
    link.mkdir()
    for file in folder.iterdir():
        if file.name not in ("config.json", "tokenizer_config.json"):
            (link / file.name).symlink_to(file)
            continue
        values = json.loads(file.read_text(encoding="utf-8"))
        if values.get("tokenizer_class") == "TokenizersBackend":
            values["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(rope := values.pop("rope_parameters", None), dict):
            values["rope_theta"] = rope.pop("rope_theta")
            values["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
        (link / file.name).write_text(json.dumps(values), encoding="utf-8")


def run_peer(source: Path, tokenizer: Path, parallel: Path, output: Path) -> None:
    """The steps of the package's README, timed, in a scratch folder with short names (they become file names)."""
    seconds: dict[str, float] = {}

    def timed(name: str, function, *arguments, **options):
        started = time.perf_counter()
        result = function(*arguments, **options)
        seconds[name] = round(time.perf_counter() - started, 1)
        return result

    with tempfile.TemporaryDirectory(prefix="peer-") as scratch:
        os.chdir(scratch)
        os.environ["TT_HOME"] = scratch
        link_for_transformers_4(source, Path("source"))
        link_for_transformers_4(tokenizer, Path("target"))
        from transformers import AutoTokenizer
        from transtokenizers import align, create_aligned_corpus, map_tokens, remap_model, smooth_mapping
        from transtokenizers import transtokenizers as package

        package.get_dataset_iterator = lambda *_: read_pairs(parallel)
        corpus = timed("corpus", create_aligned_corpus, "en", "xx", "source", "target", corpus_list=["parallel"])
        stand_in = f"{sys.executable} {Path(__file__).resolve()} fast-align"
        links = timed("align", align, corpus, fast_align_path=stand_in)
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(links, output / LINKS)
        mapping, _ = timed("map", map_tokens, links, "source", "target")
        mapped = len(mapping)
        smoothed = timed("smooth", smooth_mapping, "target", mapping)
        model = timed("remap", remap_model, "source", "target", smoothed, "source")
        model.save_pretrained(output)
        AutoTokenizer.from_pretrained("target").save_pretrained(output)
    facts = {"package": PEER, "tokens_mapped_by_alignment": mapped, "seconds": seconds}
    (output / "peer.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))


def fast_align(arguments: list[str]) -> None:
    """What `fast_align -i CORPUS -I ITERATIONS -p TABLE` writes: source, target, log probability, expected count."""
    if "-h" in arguments:
        sys.exit(1)  # as the binary does, and as the package checks
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", required=True, type=Path)
    parser.add_argument("-I", type=int, default=5)
    parser.add_argument("-p", required=True, type=Path)
    options = parser.parse_args(arguments)
    import numpy as np

    words = {"<eps>": 0}
    pairs, sizes = [], []
    for line in options.i.read_text(encoding="utf-8").split("\n"):
        source, _, target = line.partition(" ||| ")
        # The empty word stands in front of every source sentence.
        source_ids = [0, *(words.setdefault(word, len(words)) for word in source.split())]
        target_ids = [words.setdefault(word, len(words)) for word in target.split()]
        if len(source_ids) > 1 and target_ids:
            # Target-major: the source words that compete for one target word lie together.
            pairs.append(np.add.outer(np.array(target_ids), np.array(source_ids, dtype=np.int64) << 32).ravel())
            sizes.append(np.full(len(target_ids), len(source_ids)))
    keys, cell = np.unique(np.concatenate(pairs), return_inverse=True)
    del pairs
    widths = np.concatenate(sizes)
    starts = np.cumsum(widths) - widths
    sources, targets = keys >> 32, keys & 0xFFFFFFFF
    probability = np.ones(len(keys))
    # The binary's last iteration only reads off the best links, so there is one E-step less than iterations.
    for _ in range(options.I - 1):
        shares = probability[cell]
        shares /= np.repeat(np.add.reduceat(shares, starts), widths)
        counts = np.bincount(cell, shares, minlength=len(keys))
        probability = counts / np.bincount(sources, counts)[sources]
    best = np.zeros(len(words))
    np.maximum.at(best, sources, probability)
    with np.errstate(divide="ignore"):
        logarithm = np.log(probability)
        # The binary's beam: log p is kept down to four times the log of the best translation's.
        kept = np.flatnonzero((probability > 0) & (logarithm >= 4 * np.log(best[sources])))
    names = list(words)
    with options.p.open("w", encoding="utf-8") as table:
        for i in kept:
            table.write(f"{names[sources[i]]}\t{names[targets[i]]}\t{logarithm[i]:.6g}\t{counts[i]:.6g}\n")


def main() -> None:
    if sys.argv[1:2] == ["fast-align"]:
        fast_align(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "tokenizer", "parallel", "output"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="virtual environment, made when missing")
    options = parser.parse_args()
    if importlib.util.find_spec("transtokenizers") is None:
        python = options.environment / "bin" / "python"
        ready = options.environment / "ready"
        if not ready.exists():
            venv.create(options.environment, with_pip=True, clear=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
            ready.touch()
        # A fixed hash seed: the package walks over sets, and its smoothing depends on their order.
        settings = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        os.execve(python, [str(python), *sys.argv], os.environ | settings)
    if options.output.exists():
        sys.exit(f"{options.output} exists: name another folder or remove it.")
    run_peer(*(path.resolve() for path in (options.source, options.tokenizer, options.parallel, options.output)))


if __name__ == "__main__":
    main()
