"""Bits per byte of every method after the transfer and after a short probe, on text of parts held out of training.

    python benchmarks/quality.py --corpora FOLDER --languages nl ru tt --updates 50

FOLDER holds ``en-XX.tsv.xz`` files (part, English, target), as `vocabtransfer.corpora.parallel` makes them. Tokenizer,
alignment and frequencies come from the training parts alone, the score from the held-out parts. Finished rows are kept
in the results file, so an interrupted run goes on where it stopped.
"""

import argparse
import json
import lzma
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import vocabtransfer as vt
from vocabtransfer.evaluation import bits_per_byte, load_causal_model, probe
from vocabtransfer.surgery import TransferResult, target_words

HELD_OUT = {
    "nl": {"gnome-help", "debian-handbook"},
    "ru": {"gnome-help", "debian-handbook", "quran"},
    "tr": {"quran", "debian-handbook"},
    "tt": {"gettext"},
}
SIZES = {"tt": 4_000}
METHODS = {
    "mean": ("mean", False),
    "random": ("random", False),
    "pieces": ("pieces", False),
    "alignment only": ("alignment", False),
    "trans_tokenization, not calibrated": ("trans_tokenization", False),
    "pieces, calibrated": ("pieces", True),
    "trans_tokenization": ("trans_tokenization", True),
}
DOCUMENT = 1_500  # characters: consecutive lines of a part are one document


def read_parts(path: Path, held_out: set[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the training pairs and the held-out documents."""
    pairs, documents, current, last = [], [], "", ""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            part, english, target = line.rstrip("\n").split("\t")
            if part not in held_out:
                pairs.append((english, target))
                continue
            if part != last or len(current) > DOCUMENT:
                documents.append(current)
                current = ""
            current, last = current + target + "\n", part
    documents = [document for document in [*documents, current] if document.strip()]
    # Every seventh, then the ones between: any prefix of the list is spread over the held-out parts.
    return pairs, [document for start in range(7) for document in documents[start::7]]


def measure(result: TransferResult, train: list[str], test: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Score a transferred model at step 0 and after the updates."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        written = result.save(Path(scratch) / "model")
        model = load_causal_model(written.path)
        tokenizer = vt.load_tokenizer(written.path)
        if not arguments.updates:
            score = bits_per_byte(model, tokenizer, test, max_bytes=arguments.bytes)
            return {"0": round(score.bits_per_byte, 4)}
        probed = probe(
            model,
            tokenizer,
            train,
            test,
            updates=arguments.updates,
            batch_tokens=arguments.batch_tokens,
            max_eval_bytes=arguments.bytes,
        )
        return {str(updates): round(value, 4) for updates, value in probed.bits_per_byte.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["nl", "ru", "tt"], choices=sorted(HELD_OUT))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--updates", nargs="*", type=int, default=[50])
    parser.add_argument("--bytes", type=int, default=40_000, help="held-out bytes to score")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="tokens of one update")
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--scratch", type=Path, help="where models are written for a moment")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "quality.json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    results: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    source = vt.open_checkpoint(arguments.source)
    for language in arguments.languages:
        pairs, test = read_parts(arguments.corpora / f"en-{language}.tsv.xz", HELD_OUT[language])
        table = vt.count_words(pairs)
        train = [target for _, target in pairs]
        size = SIZES.get(language, 16_000)
        tokenizer = vt.train_tokenizer(train, like=source.tokenizer, vocab_size=size)
        rows = results.setdefault(language, {})
        if "source tokenizer" not in rows:
            model = load_causal_model(source.path)
            score = bits_per_byte(model, source.tokenizer, test, max_bytes=arguments.bytes)
            rows["source tokenizer"] = {"0": round(score.bits_per_byte, 4), "pairs": len(pairs), "vocabulary": size}
            del model
        for name in arguments.methods:
            if name in rows:
                continue
            method, calibrate = METHODS[name]
            started = time.perf_counter()
            result = vt.transfer(
                source, tokenizer, method=method, alignment=table, words=target_words(table), calibrate=calibrate
            )
            seconds = time.perf_counter() - started
            rows[name] = {**measure(result, train, test, arguments), "seconds": round(seconds, 1)}
            print(language, name, rows[name], flush=True)
            arguments.results.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
