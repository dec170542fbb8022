"""FOCUS and WECHSEL beside their authors' packages: the same inputs, rows compared one by one, CPU time and memory.

    python benchmarks/vector_peers.py --peers build/vector-peers/bin/python --source llama3 --alignment TABLE \
        --text TARGET.txt --source-text ENGLISH.txt

The packages run unchanged in an environment of their own:

    python -m venv build/vector-peers
    build/vector-peers/bin/pip install --no-deps deepfocus==1.0.1 wechsel==0.0.4 fasttext-community==0.11.9
    build/vector-peers/bin/pip install torch==2.13.0 transformers==4.57.1 "numpy<2.4" datasets entmax fastdist gensim \
        nltk numba pybind11 print-on-steroids requests scikit-learn scipy tqdm

What is compared:

- ``focus``: from the text to the rows, fastText's training included, with as many passes. deepfocus and we train with
  different learning rates and names of tokens, so only cost is compared.
- ``focus rows``: both get one fastText model and the peer's own choice of shared tokens; all combined rows must agree.
- ``wechsel``: from two fastText models and a dictionary to the rows. Ours copies equal tokens, the peer does not.
- ``wechsel rows``: both get the same models and the same pairs; rows must agree for every token that has a vector.

The source table is random numbers of the given width: neither method looks at it before the last product. Source tokens
that differ in a space alone have the same row, for WECHSEL gives them the same vector, and which of two equal neighbours
gets the tenth place is chance.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("deepfocus==1.0.1", "wechsel==0.0.4")
WORDS = {"dim": 100, "neg": 10, "minn": 5, "maxn": 5, "minCount": 5, "epoch": 10, "lr": 0.1}
TOKENS = {"dim": 100, "neg": 10, "minn": 3, "maxn": 6, "minCount": 10, "epoch": 3}


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Run work; return its result, its CPU and wall seconds (children included) and the process's peak memory."""
    started, before = time.perf_counter(), _cpu()
    result = work()
    # Not ru_maxrss: a new process inherits its parent's.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    cost = {
        "cpu_seconds": round(_cpu() - before, 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
        "peak_mb": int(peak.split()[1]) // 1024,
    }
    return result, cost


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# --- the peers, in their environment ----------------------------------------------------------------------------------


def peer_tokenizers(folder: Path) -> tuple[Any, Any]:
    from transformers import PreTrainedTokenizerFast

    facts = json.loads((folder / "special.json").read_text())
    return tuple(
        PreTrainedTokenizerFast(tokenizer_file=str(folder / f"{side}.json"), **facts[side])
        for side in ("source", "target")
    )


def peer_focus(folder: Path) -> dict[str, float]:
    import torch
    from deepfocus import FOCUS

    source, target = peer_tokenizers(folder)
    table = torch.from_numpy(np.load(folder / "table.npy"))
    options = {"target_training_data_path": str(folder / "target.txt"), "verbosity": "silent"}
    rows, cost = measured(lambda: FOCUS(target, source, table, **options))
    np.save(folder / "peer-focus-text.npy", rows.numpy())
    return cost


def peer_focus_rows(folder: Path) -> dict[str, float]:
    import torch
    from deepfocus import FOCUS
    from deepfocus.focus import get_overlapping_tokens

    source, target = peer_tokenizers(folder)
    table = torch.from_numpy(np.load(folder / "table.npy"))
    model = str(folder / "tokens.bin")
    rows, cost = measured(lambda: FOCUS(target, source, table, fasttext_model_path=model, verbosity="silent"))
    np.save(folder / "peer-focus.npy", rows.numpy())
    shared, _ = get_overlapping_tokens(target, source, match_symbols=False, exact_match_all=True, fuzzy_match_all=False)
    pairs = [(token.target.id, token.source[0].id) for token in shared.values()]
    (folder / "peer-shared.json").write_text(json.dumps(sorted(pairs)))
    return cost


def peer_wechsel(folder: Path) -> dict[str, float]:
    from wechsel import WECHSEL, load_embeddings

    source, target = peer_tokenizers(folder)
    table = np.load(folder / "table.npy")

    def run() -> np.ndarray:
        spaces = (load_embeddings(str(folder / f"{side}-words.bin")) for side in ("source", "target"))
        method = WECHSEL(*spaces, bilingual_dictionary=str(folder / "dictionary.txt"))
        return method.apply(source, target, table)[0]

    rows, cost = measured(run)
    np.save(folder / "peer-wechsel.npy", rows)
    return cost


PEERS = {"focus": peer_focus, "focus rows": peer_focus_rows, "wechsel": peer_wechsel}


# --- ours -------------------------------------------------------------------------------------------------------------


def our_inputs(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    from vocabtransfer.alignment.table import WordTable
    from vocabtransfer.files.text import read_text
    from vocabtransfer.initialization import TransferInputs, VectorFiles
    from vocabtransfer.tokenization.pieces import PieceEncoder

    facts = json.loads((folder / "special.json").read_text())
    source, target = (
        PieceEncoder(PreTrainedTokenizerFast(tokenizer_file=str(folder / f"{side}.json"), **facts[side]))
        for side in ("source", "target")
    )
    return TransferInputs(
        source,
        target,
        np.ones(len(source.vocabulary), np.bool_),
        WordTable.load(folder / "alignment.tsv"),
        text=lambda: read_text([folder / "target.txt"]),
        vectors=VectorFiles(folder / "source-words.bin", folder / "target-words.bin"),
    )


def write_rows(token_map: Any, folder: Path, name: str) -> None:
    """Apply a map to the table block by block, into a file."""
    table = np.load(folder / "table.npy", mmap_mode="r")
    shape = (token_map.n_target, table.shape[1])
    rows = np.lib.format.open_memmap(folder / name, "w+", np.float32, shape)
    for start, block in token_map.blocks(table):
        rows[start : start + len(block)] = block


def our_focus(folder: Path) -> dict[str, float]:
    from dataclasses import replace

    from vocabtransfer.initialization.fallback import fallback
    from vocabtransfer.initialization.focus import TOKENS as OURS_AT_SCALE
    from vocabtransfer.initialization.focus import combined_map, trained_token_vectors
    from vocabtransfer.initialization.identity import identity

    inputs = our_inputs(folder)
    # As many passes and as rare tokens as the peer's, which our settings come to on large texts alone.
    training = replace(OURS_AT_SCALE, most_epochs=TOKENS["epoch"], words_a_count=1)

    def run() -> None:
        vectors, copied = trained_token_vectors(inputs.target, inputs.text, 0, training), identity(inputs)
        combined = combined_map(inputs, vectors, copied)
        write_rows(copied.or_else(combined).or_else(fallback(inputs)), folder, "our-focus-text.npy")

    return measured(run)[1]


def our_focus_rows(folder: Path) -> dict[str, float]:
    from vocabtransfer.initialization.focus import combined_map
    from vocabtransfer.initialization.vector_files import load_word_vectors
    from vocabtransfer.token_map import TokenMap

    inputs = our_inputs(folder)
    pairs = np.array(json.loads((folder / "peer-shared.json").read_text()))

    def run() -> None:
        model = load_word_vectors(folder / "tokens.bin")
        names = list(inputs.target_vocabulary.strings)
        vectors = model.vectors(names) * model.known(names)[:, None]
        copied = TokenMap.from_pairs(pairs[:, 0], pairs[:, 1], inputs.shape, "copied")
        combined = combined_map(inputs, vectors, copied)
        np.save(folder / "compared-focus.npy", np.flatnonzero(combined.filled))
        write_rows(combined, folder, "our-focus.npy")

    return measured(run)[1]


def our_wechsel(folder: Path) -> dict[str, float]:
    from vocabtransfer.initialization.wechsel import wechsel

    inputs = our_inputs(folder)
    return measured(lambda: write_rows(wechsel(inputs).token_map, folder, "our-wechsel-all.npy"))[1]


def our_wechsel_rows(folder: Path) -> dict[str, float]:
    from vocabtransfer.initialization.bilingual_vectors import procrustes
    from vocabtransfer.initialization.neighbours import unit_rows
    from vocabtransfer.initialization.token_vectors import subword_vectors
    from vocabtransfer.initialization.vector_files import load_word_vectors
    from vocabtransfer.initialization.wechsel import nearest_map

    inputs = our_inputs(folder)

    def run() -> None:
        source, target = (load_word_vectors(folder / f"{side}-words.bin") for side in ("source", "target"))
        lines = (folder / "dictionary.txt").read_text(encoding="utf-8").splitlines()
        # The package looks up every pair in three spellings a side.
        pairs = [
            (left, right)
            for one, other in (line.split("\t") for line in lines)
            for left in (one, one.lower(), one.title())
            for right in (other, other.lower(), other.title())
        ]
        chosen = np.flatnonzero(source.known([p[0] for p in pairs]) & target.known([p[1] for p in pairs])).tolist()
        rotation = procrustes(
            unit_rows(source.vectors([pairs[i][0] for i in chosen])),
            unit_rows(target.vectors([pairs[i][1] for i in chosen])),
        )
        moved, stayed = subword_vectors(inputs.source, source) @ rotation, subword_vectors(inputs.target, target)
        similar = nearest_map(inputs, moved, stayed, np.ones(inputs.shape[0], np.bool_))
        np.save(folder / "compared-wechsel.npy", np.flatnonzero(similar.filled))
        write_rows(similar, folder, "our-wechsel.npy")

    return measured(run)[1]


OURS = {
    "focus": our_focus,
    "focus rows": our_focus_rows,
    "wechsel": our_wechsel,
    "wechsel rows": our_wechsel_rows,
}


# --- inputs and comparison --------------------------------------------------------------------------------------------


def prepare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write everything that both sides read."""
    import vocabtransfer as vt
    from vocabtransfer.files.text import read_text

    source = vt.load_tokenizer(arguments.source)
    lines = [line for line in read_text([arguments.text]) if line.strip()]
    target = vt.train_tokenizer(lines, like=source, vocab_size=arguments.vocab_size)
    table = vt.WordTable.load(arguments.alignment)
    table.save(folder / "alignment.tsv")
    pairs = write_inputs(folder, source, target, table, lines, read_text([arguments.source_text]))
    train_fasttext((" ".join(target.tokenize(line)) for line in lines), folder / "tokens.bin", TOKENS)
    texts, row = np.unique([source.decode([i]).strip() for i in range(len(source))], return_inverse=True)
    shape = (len(texts), arguments.hidden)
    np.save(folder / "table.npy", np.random.default_rng(0).standard_normal(shape, np.float32)[row])
    return {
        "source": arguments.source.name,
        "source_rows": len(source),
        "hidden": arguments.hidden,
        "target_rows": len(target),
        "text": arguments.text.name,
        "text_mb": round((folder / "target.txt").stat().st_size / 1e6, 1),
        "dictionary_pairs": pairs,
        "packages": PACKAGES,
        "cores": os.cpu_count(),
    }


def write_inputs(
    folder: Path, source: Any, target: Any, table: Any, lines: Iterable[str], source_lines: Iterable[str]
) -> int:
    """Write tokenizers, text, dictionary and word vectors; return the number of pairs in the dictionary."""
    from vocabtransfer.alignment.words import split_words
    from vocabtransfer.initialization.bilingual_vectors import dictionary

    special = {}
    for side, tokenizer in (("source", source), ("target", target)):
        tokenizer.backend_tokenizer.save(str(folder / f"{side}.json"))
        roles = tokenizer.special_tokens_map.items()
        special[side] = {role: str(token) for role, token in roles if role.endswith("_token")}
    (folder / "special.json").write_text(json.dumps(special))
    lines = list(lines)
    (folder / "target.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = [pair for pair in zip(*dictionary(table), strict=True) if " " not in "".join(pair)]
    (folder / "dictionary.txt").write_text("".join(f"{one}\t{other}\n" for one, other in pairs), encoding="utf-8")
    for side, text in (("source", source_lines), ("target", lines)):
        train_fasttext((" ".join(split_words(line)) for line in text), folder / f"{side}-words.bin", WORDS)
    return len(pairs)


def train_fasttext(lines: Any, model: Path, settings: dict[str, Any]) -> None:
    """Train CBOW vectors with the package's own function, as both peers do, and save them."""
    import fasttext

    text = model.with_suffix(".txt")
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fasttext.train_unsupervised(str(text), "cbow", thread=1, verbose=0, **settings).save_model(str(model))


def compare(folder: Path, name: str) -> dict[str, Any]:
    """Return how many rows were compared and how far they are apart, relative to the length of the peer's."""
    ids = np.load(folder / f"compared-{name}.npy")
    ours, theirs = (np.load(folder / f"{who}-{name}.npy", mmap_mode="r")[ids] for who in ("our", "peer"))
    apart = np.linalg.norm(ours - theirs, axis=1) / np.maximum(np.linalg.norm(theirs, axis=1), 1e-12)
    return {
        "rows": len(ids),
        "equal_to_1e-3": int((apart < 1e-3).sum()),
        "median_difference": float(np.median(apart)),
        "largest_difference": float(apart.max()),
    }


def run_child(python: Path, side: str, part: str, folder: Path) -> dict[str, float]:
    """Run one part in a process of its own, so that its memory is its own, with caches in the scratch folder."""
    settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}
    settings |= {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hf")}
    if side == "ours":
        settings.pop("XDG_CACHE_HOME")
    command = [str(python), str(Path(__file__).resolve()), "--child", side, part, str(folder)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side}, {part}: failed\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        side, part, folder = sys.argv[2:]
        print(json.dumps({"peer": PEERS, "ours": OURS}[side][part](Path(folder))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="python of the peers' environment")
    parser.add_argument("--source", type=Path, required=True, help="folder of the source tokenizer")
    parser.add_argument("--text", type=Path, required=True, help="text in the target language")
    parser.add_argument("--source-text", type=Path, required=True, help="text in the source's language")
    parser.add_argument("--alignment", type=Path, required=True, help="word table of the two languages")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--parts", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--scratch", type=Path, help="where inputs and rows are written for a while (about 4 GB)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "vector_peers.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        results: dict[str, Any] = {"inputs": prepare(folder, arguments)}
        for part in arguments.parts:
            found = results[part] = {}
            if part in PEERS:
                # Not through the links of the environment: they are what makes it one.
                found["peer"] = run_child(arguments.peers.absolute(), "peer", part, folder)
            found["ours"] = run_child(Path(sys.executable), "ours", part, folder)
            if part.endswith("rows"):
                found["compared"] = compare(folder, part.split()[0])
            print(part, json.dumps(found), flush=True)
            arguments.results.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
