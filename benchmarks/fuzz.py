"""Give damaged and strange inputs to every reader, and see that nothing but `VocabTransferError` comes out.

Usage: python benchmarks/fuzz.py --inputs 6000 --seed 0

Real files (text, pairs, tables, tokenizers, models, heads, requests to the server ...) are made first; every input is one
of them with something changed. What is raised besides, an answer with status 500, and an input that takes longer than
half a minute are faults: they are printed with the reader, the file and the number of the input, which the seed makes again.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz_inputs import mutated_bytes, mutated_gguf, mutated_json, mutated_safetensors, mutated_text, packed
from fuzz_samples import Samples, make_samples

import vocabtransfer as vt
from vocabtransfer.errors import VocabTransferError

PATIENCE = 30
PACKED = (".gz", ".bz2", ".xz", ".zst")
Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
MUTATIONS: Mapping[str, Mutate] = {
    **{".json": mutated_json, ".safetensors": mutated_safetensors, ".gguf": mutated_gguf},
    **dict.fromkeys((".txt", ".tsv", ".csv", ".jsonl", ".tmx", ".vec", ".jinja", ".md"), mutated_text),
}


class TooLong(BaseException):
    """An input took too long."""


@dataclass(frozen=True)
class Reader:
    """A way into the library: the files it is given, and what is done with them."""

    name: str
    files: Mapping[str, bytes]
    read: Callable[[Path], object]
    #: A folder whose other files lie beside the changed one.
    folder: Path | None = None
    #: Inputs in a round; fewer where one takes long (whole models are opened, a build is planned).
    turns: int = 4


def readers(made: Samples) -> list[Reader]:
    """Return every reader with its real inputs."""
    from vocabtransfer.alignment.dictionary import dictionary_table
    from vocabtransfer.alignment.dictionary_files import read_dictionary
    from vocabtransfer.initialization.vector_files import load_word_vectors
    from vocabtransfer.transliteration.record import read_romanization

    def text(path: Path) -> None:
        opened = vt.read_text(path)
        list(opened)
        list(opened.documents())

    def pairs(path: Path) -> None:
        list(vt.read_parallel([path], source=vt.find_language("en"), target=vt.find_language("tt")))
        list(vt.read_parallel([path], skip_damaged=True))

    def table(path: Path) -> None:
        opened = vt.WordTable.load(path)
        opened.prune(min_count=1.0).flip().lookup("hello")

    def dictionary(path: Path) -> None:
        dictionary_table(read_dictionary(path))

    def tokenizer(path: Path) -> None:
        opened = vt.load_tokenizer(path)
        vt.Vocabulary.from_tokenizer(opened).scripts()
        vt.audit_tokenizer(opened)
        opened.decode(opened("hello сәлам world\n").input_ids)

    def tokenizer_beside(path: Path) -> None:
        tokenizer(path.parent)

    def checkpoint(path: Path) -> None:
        opened = vt.open_checkpoint(path.parent, offline=True)
        _ = opened.tokenizer, opened.vocabulary, opened.trained_rows()
        opened.read_rows(opened.layout.input_name, 0, 2)
        vt.transfer(opened, made.tokenizer, method="pieces", calibrate=False).table()

    def gguf(path: Path) -> None:
        opened = vt.open_checkpoint(path, offline=True)
        _ = opened.tokenizer, opened.input_table()

    def hydra(path: Path) -> None:
        from vocabtransfer.hydra.manage import describe_head, list_heads, verify_head

        root = next(parent for parent in path.parents if (parent / "heads").is_dir())
        opened = vt.open_hydra(root)
        list_heads(opened)
        for name in opened.names():
            with contextlib.suppress(VocabTransferError):
                describe_head(opened, name)
            with contextlib.suppress(VocabTransferError):
                verify_head(opened, name)
            _ = opened.head(name).tokenizer
        loaded = vt.HydraForCausalLM.from_pretrained(root)
        for name in loaded.heads:
            loaded.generate(**loaded.encode([(name, "hello")]), max_new_tokens=1)

    def token_map(path: Path) -> None:
        opened = vt.inspect(path.parent)
        opened.explain(3)
        opened.token_map.counts_by_rule()

    def built_before(path: Path) -> None:
        from vocabtransfer.checkpoint import check_target

        check_target(path.parent, overwrite=True)
        vt.add_head_from_checkpoint(made.hydra_copy(), "fuzz", vt.open_checkpoint(path.parent, offline=True))

    def corpus(path: Path) -> None:
        opened = vt.open_corpus(path.parent)
        opened.licences()
        opened.credits()
        _ = opened.text, opened.dictionary, opened.held_out, opened.parts
        vt.build(
            vt.BuildRequest(str(made.checkpoint), "tatar", path.parent / "out", corpus=path.parent, vocab_size=300),
            dry_run=True,
        )

    def adapter(path: Path) -> None:
        vt.open_adapted(path.parent, vt.open_checkpoint(made.checkpoint, offline=True))

    def romanization(path: Path) -> None:
        read_romanization(path.parent)

    def stage(path: Path) -> None:
        words = path.read_bytes().decode("utf-8", "replace")
        for line in words.split("\n"):
            with contextlib.suppress(VocabTransferError):
                vt.Stage.parse(line)
            with contextlib.suppress(VocabTransferError):
                vt.find_language(line)
            with contextlib.suppress(VocabTransferError):
                vt.find_transliterator(line)

    files = made.files
    settings = files("english", names=("tokenizer_config.json", "special_tokens_map.json"))
    configs = files("english", names=("config.json", "generation_config.json"))
    reports = files("tatar", names=("report.json", "vocabtransfer.json", "README.md"))
    maps = files("tatar", names=("token_map.safetensors", "source_tokens.json"))
    found = [
        Reader("text", files("text"), text),
        Reader("pairs", files("pairs"), pairs),
        Reader("tables", files("tables"), table),
        Reader("dictionaries", files("pairs", "dictionary"), dictionary),
        Reader("word vectors", files("vectors"), lambda path: load_word_vectors(path).known(["hello"])),
        Reader("names and stages", files("words"), stage),
        Reader("tokenizer.json", files("tokenizer"), tokenizer),
        Reader("sentencepiece, tiktoken, vocab.txt", files("models"), tokenizer),
        Reader("tokenizer settings", settings, tokenizer_beside, made.checkpoint),
        Reader("config.json", configs, checkpoint, made.checkpoint),
        Reader("safetensors", files("english", ending=".safetensors"), checkpoint, made.checkpoint),
        Reader("safetensors index", files("english", ending="index.json"), checkpoint, made.checkpoint),
        Reader("gguf", files("gguf"), gguf),
        Reader("hydra", files("hydra", ending=".json"), hydra, made.hydra, turns=1),
        Reader("hydra tables", files("hydra", ending="head.safetensors"), hydra, made.hydra, turns=1),
        Reader("token map", maps, token_map, made.built),
        Reader("reports and manifest", reports, built_before, made.built, turns=1),
        Reader("corpus folders", files("corpus"), corpus, made.corpus, turns=1),
        Reader("adapters", files("adapter"), adapter, made.adapter),
        Reader("romanization.json", files("romanization"), romanization),
        Reader("server", files("requests"), made.ask),
    ]  # fmt: skip
    empty = [reader.name for reader in found if not reader.files]
    if empty:
        raise SystemExit(f"no samples for {', '.join(empty)}")
    return found


def fuzz(inputs: int, seed: int, place: Path, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Give the readers so many inputs in turn; return how many each had (and were refused), and the faults."""
    made = make_samples(place / "samples")
    with made:
        able = [reader for reader in readers(made) for _ in range(reader.turns)]
        counts: Counter[str] = Counter()
        faults: list[str] = []
        for number in range(first, first + inputs):
            reader = able[number % len(able)]
            draw = random.Random(f"{seed} {number}")
            name = draw.choice(sorted(reader.files))
            fault = _tried(reader, name, draw, place / "input")
            counts[reader.name] += 1
            counts["refused"] += fault == ""
            if fault:
                faults.append(f"{reader.name}, {name}, input {number}: {fault}")
                print(faults[-1], file=sys.stderr, flush=True)
    return counts, faults


def _tried(reader: Reader, name: str, draw: random.Random, place: Path) -> str | None:
    """Return None where an input was read, "" where it was refused in a sentence, or what went wrong."""
    others = [data for other, data in reader.files.items() if other != name]
    suffix = Path(name).suffix
    data = MUTATIONS.get(suffix, mutated_bytes)(draw, reader.files[name], others)
    if suffix in (".txt", ".tsv", ".jsonl", ".tmx", ".csv") and draw.random() < 0.15 and reader.folder is None:
        suffix = draw.choice(PACKED)
        name, data = name + suffix, packed(draw, data, suffix)
    shutil.rmtree(place, ignore_errors=True)
    if reader.folder is not None:
        shutil.copytree(reader.folder, place, copy_function=os.link)
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        with _patience():
            reader.read(path)
    except VocabTransferError as refusal:
        said = str(refusal)
        wrong = "please report it" in said or not said or "Traceback" in said
        return f"{said[:300]} {_place(refusal.__cause__)}" if wrong else ""
    except TooLong as slow:
        return f"took more than {PATIENCE} seconds {_place(slow)}"
    except (Exception, SystemExit) as problem:
        return f"{type(problem).__name__}: {str(problem)[:300]} {_place(problem)}"
    return None


def _place(problem: BaseException | None) -> str:
    """Return the last lines of the library's own that an exception came through."""
    frames = traceback.extract_tb(problem.__traceback__) if problem is not None else []
    ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "vocabtransfer" in f.filename]
    return f"[{' '.join(ours[-4:])}]"


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    def over(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Run it and print the counts as JSON; ends with 1 where there were faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input, for a part of a run")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = place + "/cache"
        counts, faults = fuzz(options.inputs, options.seed, Path(place), options.first)
    refused = counts.pop("refused")
    facts = {"inputs": options.inputs, "seed": options.seed, "refused in a sentence": refused, "foreign": len(faults)}
    print(json.dumps({**facts, "seconds": round(time.perf_counter() - started), "by reader": dict(counts)}, indent=2))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
