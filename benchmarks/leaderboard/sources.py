"""Two sources, two shapes of a vocabulary, two domains: is `auto` the best in every cell, the untouched model beside it?

    python benchmarks/leaderboard/sources.py --corpora FOLDER --languages nl ru tr tt              # at once
    python benchmarks/leaderboard/sources.py --corpora FOLDER --languages nl tt --updates 50       # and after 50 updates
    python benchmarks/leaderboard/sources.py --corpora FOLDER --languages nl tt --distill 1000     # and `auto` distilled
    python benchmarks/leaderboard/sources.py --corpora FOLDER --methods --distill 800 --new-tokens 2500  # fewer new tokens
    python benchmarks/leaderboard/sources.py --table                                               # what is in results/

FOLDER holds ``en-XX.tsv.xz`` files (part, English, target), as `vocabtransfer.corpora.parallel` makes them. Every twentieth
document of the training parts is held out: text of the tokenizer's own domain. The parts that the leaderboard holds out are
the other domain. Every cell (source, language, shape) has a file in ``results/sources/``, written row by row, so that a run
that was stopped goes on where it was. The untouched model is scored once for a source and a language. With ``--methods`` and
no method only what ``--distill`` asks for is measured.
"""

import argparse
import dataclasses
import lzma
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import torch
from run import DOCUMENT, HELD_OUT, spread
from sources_table import AUTO, DISTILLED, RESULTS, SHAPES, tables
from transformers import PreTrainedModel

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.languages import find_language
from vocabtransfer.leaderboard.contest import Contest, Entry, Row, load_rows, save_rows
from vocabtransfer.leaderboard.inputs import LEARNING_RATE, learning_rate_of
from vocabtransfer.leaderboard.measuring import load_model, run_contest, score_tables
from vocabtransfer.leaderboard.untouched import add_untouched
from vocabtransfer.pipeline.distilled import Budget, distilled
from vocabtransfer.pipeline.new_tokens import default_new_tokens
from vocabtransfer.pipeline.request import BuildRequest
from vocabtransfer.pipeline.target_tokenizer import default_vocab_size, make_tokenizer
from vocabtransfer.progress import show_progress
from vocabtransfer.running.half_body import multiplies_bfloat16
from vocabtransfer.running.settings import running_with
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.transfer import TransferResult, transfer

#: `auto`, and the rivals that came nearest on one source or the other.
METHODS = (
    "auto",
    "pieces",
    "pieces+calibrate",
    "pieces_characters+calibrate",
    "trans_tokenization+calibrate",
    "inner_lexicon",
)
#: Parts that are the other domain, for languages that `run.py` has no choice for.
OTHERWISE = ("gnome-help", "debian-handbook", "scratch", "mediawiki", "quran")
EVERY, FROM = 20, 10  # of the documents of a training part the 10th, the 30th, ... are held out
MOST_NEW, LARGEST = 6_000, 16_000
#: No held-out document tells more of the score than another: so many documents of each domain at most are read.
DOCUMENTS = 200


@dataclasses.dataclass(frozen=True)
class Texts:
    """The training pairs, held-out documents of their parts, and documents of the parts that are another domain."""

    pairs: list[tuple[str, str]]
    own: list[str]
    other: list[str]


def read_texts(path: Path, language: str) -> Texts:
    """Split a corpus into training pairs and two domains of held-out documents, each spread over its parts."""
    documents: list[tuple[str, list[tuple[str, str]]]] = []
    length = 0
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            part, english, target = line.rstrip("\n").split("\t")
            if not documents or documents[-1][0] != part or length > DOCUMENT:
                documents.append((part, []))
                length = 0
            documents[-1][1].append((english, target))
            length += len(target) + 1
    elsewhere = HELD_OUT.get(language, set(OTHERWISE))
    own: list[str] = []
    other: list[str] = []
    pairs: list[tuple[str, str]] = []
    count = 0
    for part, lines in documents:
        text = "".join(target + "\n" for _, target in lines)
        if part in elsewhere:
            other.append(text)
            continue
        count += 1
        if count % EVERY == FROM:
            own.append(text)
        else:
            pairs += lines
    return Texts(pairs, spread(own)[:DOCUMENTS], spread(other)[:DOCUMENTS])


def corpus_of(folders: list[Path], language: str) -> Path:
    """Return the corpus of a language; an end with a sentence where no folder has one."""
    found = [path for folder in folders if (path := folder / f"en-{language}.tsv.xz").exists()]
    return found[0] if found else sys.exit(f"No folder of --corpora has en-{language}.tsv.xz.")


def contest_of(
    source: str, language: str, shape: str, texts: Texts, evidence: Evidence, arguments: argparse.Namespace
) -> Contest:
    """Make the tokenizer that `build` would, no larger than the leaderboard's, and put the contest together."""
    opened = open_checkpoint(Path(source) if Path(source).exists() else source)
    words = evidence.word_counts
    new = arguments.new_tokens or min(MOST_NEW, default_new_tokens(words))
    size = min(LARGEST, default_vocab_size(words))
    request = BuildRequest(
        source,
        language,
        vocabulary=shape,  # type: ignore[arg-type]
        new_tokens=None if shape == "replace" else new,
        vocab_size=size if shape == "replace" else None,
    )
    made = make_tokenizer(request, opened, find_language(language), words, evidence.running, texts.own)
    return Contest(
        source=opened,
        tokenizer=made.tokenizer,
        pairs=texts.pairs,
        evidence=evidence,
        test=texts.own,
        other=texts.other,
        updates=tuple(arguments.updates),
        batch_tokens=arguments.batch_tokens,
        learning_rate=learning_rate_of(arguments.learning_rate, opened, arguments.updates),
        max_bytes=arguments.bytes,
        precision="bfloat16" if arguments.device == "cpu" and multiplies_bfloat16() else "float32",
    )


def run_cell(contest: Contest, language: str, shape: str, methods: list[str], *, train_untouched: bool) -> None:
    """Measure what is missing of a cell, and the untouched model once for its source and language."""
    name = f"{contest.source.name.split('/')[-1]}-{language}"
    step = "".join(f"-{count}" for count in contest.updates)
    if contest.updates and contest.learning_rate != learning_rate_of(None, contest.source, contest.updates):
        step += f"-{contest.learning_rate:g}"
    file = RESULTS / f"{name}-{shape}{step}.json"
    print(file.name, len(contest.tokenizer), "tokens", flush=True)
    if not contest.updates:
        alone = dataclasses.replace(contest, tokenizer=contest.source.tokenizer)
        add_untouched(alone, [], results=RESULTS / f"{name}-untouched.json")
    for row in run_contest(contest, [Entry.parse(method) for method in methods], results=file):
        print(f"  {row.label}: {dict(row.scores)}, other {dict(row.other)}, {row.seconds} s", flush=True)
    if contest.updates and train_untouched:
        add_untouched(contest, [], results=file)


def distil_cell(contest: Contest, language: str, shape: str, updates: int, new_tokens: int) -> None:
    """Score `auto` at once and after so many updates of distillation, and the untouched model, with the same text.

    ``new_tokens`` is what was asked for; it is named in the file only then.
    """
    contest = dataclasses.replace(contest, updates=(), learning_rate=LEARNING_RATE)
    name = f"{contest.source.name.split('/')[-1]}-{language}"
    size = f"-{new_tokens}" if new_tokens else ""
    file = RESULTS / f"{name}-{shape}{size}-distilled-{updates}.json"
    rows = load_rows(file, contest)
    if rows:
        return
    print(file.name, len(contest.tokenizer), "tokens", flush=True)
    rows = add_untouched(dataclasses.replace(contest, tokenizer=contest.source.tokenizer), [])
    made = transfer(contest.source, contest.tokenizer, contest.evidence, method=AUTO)
    model = load_model(contest.source, contest.precision)
    rows.append(score_as_row(contest, model, AUTO, made, 0.0))
    english, target = ([pair[side] for pair in contest.pairs] for side in (0, 1))
    began = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        distilled(
            *(made, Budget(updates), Path(folder) / "out", str(contest.source.path), target, english), seed=0
        ) as (taught, _),
    ):
        rows.append(score_as_row(contest, model, DISTILLED, taught, time.process_time() - began))
    save_rows(file, contest, rows)
    for row in rows:
        print(f"  {row.label}: {dict(row.scores)}, other {dict(row.other)}, {row.seconds} s", flush=True)


def score_as_row(contest: Contest, model: PreTrainedModel, label: str, made: TransferResult, seconds: float) -> Row:
    """Return the row of tables: scores in both domains, and what they took."""
    table = made.table("input")
    assert table is not None, "every model has an input table"
    found = score_tables(contest, model, table, made.table("output"), made.table("bias"))
    return Row(label, 0, found.scores, round(seconds, 1), 0.0, found.other, found.tokens_per_word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpora", type=Path, nargs="+", help="folders; the first that has a language's file is taken"
    )
    parser.add_argument("--languages", nargs="+", default=["nl", "ru", "tr", "tt"])
    parser.add_argument(
        "--sources", nargs="+", default=["smollm2"], help="aliases or files, such as smollm2 GEMMA.gguf"
    )
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=["replace", "extend", "swap"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="as `vocabtransfer leaderboard --method`")
    parser.add_argument("--updates", nargs="*", type=int, default=[])
    parser.add_argument("--methods-only", action="store_true", help="leave training the untouched model to a later run")
    parser.add_argument("--batch-tokens", type=int, default=128)
    parser.add_argument(
        "--learning-rate", type=float, help="of the tables; as `vocabtransfer leaderboard` if not given"
    )
    parser.add_argument("--bytes", type=int, default=6_000, help="held-out bytes to score in each domain")
    parser.add_argument(
        "--distill",
        type=int,
        default=0,
        help="and score extended `auto` after so many updates of distillation",
    )
    parser.add_argument(
        "--new-tokens", type=int, default=0, help="so many with --distill, not what `build` takes for the text"
    )
    parser.add_argument("--device", default="cpu", help="where models run")
    parser.add_argument("--table", action="store_true", help="only print what is in results/")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    RESULTS.mkdir(exist_ok=True)
    if not arguments.table and not arguments.corpora:
        parser.error("--corpora is needed to measure.")
    if arguments.new_tokens and arguments.methods:
        parser.error("--new-tokens is for --distill alone: give --methods and no method.")
    # A GPU multiplies float32 numbers of fewer digits as fast as half ones, and nothing has to be cast.
    torch.set_float32_matmul_precision("highest" if arguments.device == "cpu" else "high")
    precision = None if arguments.device == "cpu" else "float32"
    with show_progress(sys.stderr.isatty()), running_with(arguments.device, precision):
        for language in [] if arguments.table else arguments.languages:
            texts = read_texts(corpus_of(arguments.corpora, language), language)
            evidence = Evidence.of_pairs(texts.pairs, alignment=align_corpus(texts.pairs))
            for source, shape in product(arguments.sources, arguments.shapes):
                contest = contest_of(source, language, shape, texts, evidence, arguments)
                if arguments.methods:
                    run_cell(contest, language, shape, arguments.methods, train_untouched=not arguments.methods_only)
                if arguments.distill and shape != "replace":
                    distil_cell(contest, language, shape, arguments.distill, arguments.new_tokens)
    for text in tables().values():
        print(text, end="\n\n")


if __name__ == "__main__":
    main()
