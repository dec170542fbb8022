"""The leaderboard: every method on the same source, tokenizer and text, on parts held out of everything.

    python benchmarks/leaderboard/run.py --corpora FOLDER --languages nl ru tr tt --updates 50 200
    python benchmarks/leaderboard/run.py --corpora FOLDER --languages nl ru tr --source MINILM-FOLDER   # retrieval

FOLDER holds ``en-XX.tsv.xz`` files (part, English, target), as `vocabtransfer.corpora.parallel` makes them. Tokenizer,
alignment, vectors and frequencies come from the training parts alone, the scores from the held-out parts. Finished rows
are kept in ``results/``, so an interrupted run goes on where it stopped.

``--peer PYTHON`` adds trans-tokenizers 0.1.4 from an environment that has it (see ../trans_tokenizers_peer.py), and
``--vector-peers PYTHON`` deepfocus 1.0.1 and wechsel 0.0.4 (see ../vector_peers.py).
"""

import argparse
import json
import lzma
import sys
from pathlib import Path

import torch
from peers import add_trans_tokenizers, add_vector_peers

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.initialization import METHODS, Need
from vocabtransfer.leaderboard.contest import Contest, Entry, load_rows, summary
from vocabtransfer.leaderboard.measuring import run_contest
from vocabtransfer.progress import show_progress
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.tokenization.train import train_tokenizer

HELD_OUT = {
    "nl": {"gnome-help", "debian-handbook"},
    "ru": {"gnome-help", "debian-handbook", "quran"},
    "tr": {"quran", "debian-handbook"},
    "tt": {"gettext"},
    # Looked at for one choice each.
    "sw": {"mediawiki"},
    "id": {"gnome-help", "debian-handbook"},
    # Nothing was ever chosen by looking at these.
    "de": {"gnome-help", "debian-handbook"},
    "hi": {"libreoffice-help", "scratch"},
    "kk": {"mediawiki", "scratch"},
    "fi": {"gnome-help"},
    "pl": {"gnome-help", "debian-handbook"},
}
SIZES = {"tt": 4_000, "sw": 4_000, "hi": 8_000, "kk": 8_000}
DOCUMENT = 1_500  # characters: consecutive lines of a part are one document
HERE = Path(__file__).parent


def read_parts(path: Path, held_out: set[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """Return the training pairs, the held-out pairs and the held-out documents of the target side."""
    pairs, others, documents, current, last = [], [], [], "", ""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            part, english, target = line.rstrip("\n").split("\t")
            if part not in held_out:
                pairs.append((english, target))
                continue
            if 20 < len(english) < 300 and 20 < len(target) < 300:
                others.append((english, target))
            if part != last or len(current) > DOCUMENT:
                documents.append(current)
                current = ""
            current, last = current + target + "\n", part
    documents = [document for document in [*documents, current] if document.strip()]
    return pairs, others[:: max(1, len(others) // 1000)][:1000], spread(documents)


def spread(documents: list[str]) -> list[str]:
    """Return every seventh document, then the ones between: any beginning is spread over the held-out parts."""
    return [document for start in range(7) for document in documents[start::7]]


def contest_of(language: str, arguments: argparse.Namespace) -> Contest:
    source = open_checkpoint(arguments.source)
    pairs, others, documents = read_parts(arguments.corpora / f"en-{language}.tsv.xz", HELD_OUT[language])
    size = SIZES.get(language, 16_000)
    return Contest(
        source=source,
        tokenizer=train_tokenizer([target for _, target in pairs], like=source.tokenizer, vocab_size=size),
        pairs=pairs,
        evidence=Evidence.of_pairs(
            pairs,
            alignment=align_corpus(pairs),
            donor=open_checkpoint(arguments.donor) if arguments.donor else None,
        ),
        test=documents,
        test_pairs=others,
        updates=tuple(arguments.updates),
        batch_tokens=arguments.batch_tokens,
        learning_rate=arguments.learning_rate,
        max_bytes=arguments.bytes,
        precision=arguments.dtype,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", default=["nl", "ru", "tr", "tt"], choices=sorted(HELD_OUT))
    parser.add_argument("--methods", nargs="+", default=["all"], help="as `vocabtransfer leaderboard --method`")
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--donor", help="a model with the target's tokens, for omp, clp, sava and salt")
    parser.add_argument("--updates", nargs="*", type=int, default=[50, 200])
    parser.add_argument("--batch-tokens", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the tables")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the body's products")
    parser.add_argument("--bytes", type=int, default=12_000, help="held-out bytes to score")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--peer", type=Path, help="a Python that has trans-tokenizers 0.1.4")
    parser.add_argument("--vector-peers", type=Path, help="a Python that has deepfocus 1.0.1 and wechsel 0.0.4")
    parser.add_argument("--name", default="causal", help="of the results: NAME-XX.json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    names = arguments.methods
    if names == ["all"]:
        names = [name for name, method in METHODS.items() if arguments.donor or Need.DONOR not in method.needs]
    with show_progress(sys.stderr.isatty()):
        for language in arguments.languages:
            contest = contest_of(language, arguments)
            results = HERE / "results" / f"{arguments.name}-{language}.json"
            rows = run_contest(contest, [Entry.parse(n) for n in names], seeds=range(arguments.seeds), results=results)
            if arguments.peer:
                add_trans_tokenizers(contest, results, arguments.peer)
            if arguments.vector_peers:
                add_vector_peers(contest, results, arguments.vector_peers)
            rows = load_rows(results, contest)
            print(language, json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
