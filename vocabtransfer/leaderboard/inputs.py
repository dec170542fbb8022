"""What a leaderboard is made from: files and names in, a contest out, with the tokenizer that `build` would make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.alignment.corpora import Columns, read_parallel
from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.evaluation import read_documents
from vocabtransfer.files.text import TextFiles, read_text
from vocabtransfer.languages import find_language
from vocabtransfer.leaderboard.contest import Contest, Precision, split_corpus
from vocabtransfer.pipeline.request import BuildRequest
from vocabtransfer.pipeline.target_tokenizer import make_tokenizer
from vocabtransfer.public import settle_fields
from vocabtransfer.reprs import asked
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.training.rates import rate_for

#: Of the tables, meant for numbers as large as SmolLM2's.
LEARNING_RATE = 3e-4
#: Held-out pairs that an encoder is measured on.
MOST_TEST_PAIRS = 1_000


@dataclass(frozen=True)
class LeaderboardRequest:
    """What a leaderboard can be asked for; the fields of `BuildRequest` and `Contest` of the same names say what they are.

    ``held_out`` is text (pairs for encoders) instead of the last tenth of the corpus, ``other_text`` text of another kind.
    ``learning_rate`` is `LEARNING_RATE` for a table like SmolLM2's when not given, see `rate_for`.
    """

    source: str
    target: str
    parallel: TextFiles
    columns: Columns | None = None
    held_out: TextFiles = ()
    other_text: TextFiles = ()
    tokenizer: Path | None = None
    vocab_size: int | None = None
    vocabulary: str = "replace"
    new_tokens: int | str | None = None
    donor: str | None = None
    updates: tuple[int, ...] = (50, 200)
    batch_tokens: int = 512
    learning_rate: float | None = None
    max_bytes: int | None = 40_000
    field: str | None = None
    precision: Precision = "float32"

    def __repr__(self) -> str:
        return asked(self)

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("parallel", "held_out", "other_text"):  # paths however they were given
            object.__setattr__(self, name, read_text(getattr(self, name)).files)


def open_contest(request: LeaderboardRequest) -> Contest:
    """Read everything that the methods are given, and make the target tokenizer as a build would.

    Raises what reading, aligning and `make_tokenizer` raise.
    """
    language, english = find_language(request.target), find_language("en")
    source = open_checkpoint(request.source)
    pairs: Sequence[tuple[str, str]] = list(
        read_parallel(read_text(request.parallel).files, columns=request.columns, source=english, target=language)
    )
    test: list[str] = []
    test_pairs: Sequence[tuple[str, str]] = []
    if request.held_out and source.continues_text:
        test = list(read_documents(request.held_out, field=request.field))
    elif request.held_out:
        test_pairs = list(
            read_parallel(read_text(request.held_out).files, columns=request.columns, source=english, target=language)
        )
    else:
        pairs, test_pairs, test = split_corpus(pairs)
    evidence = Evidence.of_pairs(
        pairs,
        alignment=align_corpus(pairs),
        donor=open_checkpoint(request.donor) if request.donor else None,
    )
    wanted = BuildRequest(
        request.source,
        request.target,
        tokenizer=request.tokenizer,
        vocab_size=request.vocab_size,
        vocabulary=request.vocabulary if request.tokenizer is None else "auto",  # type: ignore[arg-type]
        new_tokens=request.new_tokens,
    )
    made = make_tokenizer(wanted, source, language, evidence.word_counts, evidence.running, test)
    return Contest(
        source=source,
        tokenizer=made.tokenizer,
        pairs=pairs,
        evidence=evidence,
        test=test,
        test_pairs=test_pairs[:MOST_TEST_PAIRS],
        other=list(read_documents(request.other_text, field=request.field)) if request.other_text else (),
        updates=request.updates,
        batch_tokens=request.batch_tokens,
        learning_rate=learning_rate_of(request.learning_rate, source, request.updates),
        max_bytes=request.max_bytes,
        precision=request.precision,
    )


def learning_rate_of(asked: float | None, source: Checkpoint, updates: Sequence[int]) -> float:
    """Return the rate of a contest: what was asked for, else what fits the source.

    Where nothing is trained it is `LEARNING_RATE` whatever the source: results at once do not depend on it, and are told
    apart by it all the same.
    """
    if asked is not None:
        return asked
    return rate_for(source, LEARNING_RATE) if updates and source.continues_text else LEARNING_RATE
