"""Every method on the same source, tokenizer and text: what each is worth right away and after a short training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.whole import write_whole
from vocabtransfer.initialization import find_method
from vocabtransfer.initialization.norms import Norm, check_norm
from vocabtransfer.reprs import brief
from vocabtransfer.surgery.evidence import Evidence

FORMAT = "vocabtransfer leaderboard 1"
#: How tables are trained; results of another way do not mix with these.
TRAINING = "documents, rows held"
#: What the products of the scored body run in; float32 is exact, bfloat16 twice as fast where the CPU has it.
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Entry:
    """A method as it takes part: with or without calibration to frequencies, with or without lengths brought in line."""

    method: str
    calibrate: bool = False
    norm: Norm = "none"

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Read ``method``, ``method+calibrate``, ``method+norm=script`` or both; `UsageError` for anything else.

        >>> Entry.parse("pieces+calibrate").label
        'pieces+calibrate'
        """
        name, *options = text.split("+")
        method = find_method(name)
        calibrate, norm = method.calibrated, check_norm("none")
        for option in options:
            if option in ("calibrate", "plain"):
                calibrate = option == "calibrate"
            elif option.startswith("norm="):
                norm = check_norm(option.removeprefix("norm="))
            else:
                raise UsageError(f"{text}: after the method come +calibrate, +plain or +norm=NAME, not +{option}.")
        return cls(method.name, calibrate, norm)

    @property
    def asked(self) -> bool | None:
        """What `transfer` is asked for: None where the method is left as it is, so that a build makes the same rows.

        An extended vocabulary is not calibrated unasked, and the rivals of a method have ways of their own.
        """
        return None if self.calibrate == find_method(self.method).calibrated else self.calibrate

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        own = find_method(self.method).calibrated
        calibration = "" if self.calibrate == own else "+calibrate" if self.calibrate else "+plain"
        return self.method + calibration + ("" if self.norm == "none" else f"+norm={self.norm}")


@dataclass(frozen=True, eq=False)
class Contest:
    """What all methods are given, and what they are measured on.

    Attributes:
        source: the model; a causal one is scored by bits per byte, an encoder by sentence retrieval.
        tokenizer: the target tokenizer.
        pairs: training pairs (source language, target language).
        test: held-out documents (causal models).
        test_pairs: held-out pairs (encoders).
        other: held-out documents of another kind of text than the tokenizer was made for (causal models).
        evidence: what the methods make rows from: the two sides of the training pairs, and their word-pair counts.
        updates: when to measure besides at once; no training when empty.
        batch_tokens, learning_rate: of an update, see `vocabtransfer.evaluation.probe`.
        max_bytes: held-out bytes to score.
        precision: of the body of a causal model, see `vocabtransfer.running.half_body`.
    """

    source: Checkpoint
    tokenizer: PreTrainedTokenizerFast
    pairs: Sequence[tuple[str, str]]
    evidence: Evidence
    test: Sequence[str] = ()
    test_pairs: Sequence[tuple[str, str]] = ()
    other: Sequence[str] = ()
    updates: tuple[int, ...] = (50, 200)
    batch_tokens: int = 512
    learning_rate: float = 3e-4
    max_bytes: int | None = 40_000
    precision: Precision = "float32"

    def __repr__(self) -> str:
        return brief(self, source=self.source.name, tokens=len(self.tokenizer), pairs=len(self.pairs))

    @property
    def text(self) -> list[str]:
        """The target side of the training pairs."""
        return [target for _, target in self.pairs]

    @property
    def documents(self) -> list[str]:
        """The target side of the training pairs as documents, like those that are scored: neighbouring lines."""
        return join_lines(self.text)

    def fingerprint(self) -> str:
        """Return what tells two contests apart: results of one do not mix with those of another."""
        digest = hashlib.sha256()
        facts = [self.source.name, self.updates, self.batch_tokens, self.learning_rate, self.max_bytes, len(self.pairs)]
        if self.precision != "float32":
            facts.append(self.precision)
        if self.other:
            facts.append(list(self.other))
        if self.updates and self.source.continues_text:
            facts.append(TRAINING)
        # Whoever encoded with it last may have left padding or truncation switched on.
        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        for part in (facts, tokenizer.to_str(), list(self.test), list(self.test_pairs)):
            digest.update(json.dumps(part, ensure_ascii=False).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Row:
    """What one method reached with one seed.

    ``scores`` are bits per byte by number of updates (lower is better), or retrieval accuracies by direction (higher is
    better). ``seconds`` and ``megabytes`` (peak above what was in memory before) are what making the tables took.
    ``other`` are the scores on text of another kind, ``tokens_per_word`` what the row's tokenizer makes of the held-out
    text, ``cpu_seconds`` the CPU time of the training by number of updates.
    """

    label: str
    seed: int
    scores: Mapping[str, float]
    seconds: float
    megabytes: float
    other: Mapping[str, float] = field(default_factory=dict)
    tokens_per_word: float | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """What tables reached: the scores of a `Row`, and what belongs to them there."""

    scores: Mapping[str, float]
    other: Mapping[str, float] = field(default_factory=dict)
    tokens_per_word: float | None = None
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)


def load_rows(path: Path, contest: Contest) -> list[Row]:
    """Read rows that an earlier run left; none when the file does not exist."""
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in found["rows"]]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not a leaderboard's results file: name another.") from None
    if found.get("fingerprint") != contest.fingerprint():
        raise UsageError(f"{path} holds results of another source, tokenizer, text or training: name another file.")
    return rows


def save_rows(path: Path, contest: Contest, rows: Sequence[Row]) -> None:
    """Write rows so that a later run goes on from them; the file is whole at any moment."""
    facts = {
        "format": FORMAT,
        "fingerprint": contest.fingerprint(),
        "source": contest.source.name,
        "pairs": len(contest.pairs),
        "vocabulary": len(contest.tokenizer),
        "updates": list(contest.updates),
        "batch_tokens": contest.batch_tokens,
        "learning_rate": contest.learning_rate,
        "bytes": contest.max_bytes,
        "precision": contest.precision,
        "rows": [asdict(row) for row in rows],
    }
    write_whole(path, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return per method the mean over seeds and the spread (largest less smallest) of every score, best first.

    Best is the lowest bits per byte after the most updates, or the highest retrieval accuracy.
    """
    labels = list(dict.fromkeys(row.label for row in rows))
    table = []
    for label in labels:
        mine = [row for row in rows if row.label == label]
        scores = {key: [row.scores[key] for row in mine] for key in mine[0].scores}
        table.append(
            {
                "method": label,
                "seeds": len(mine),
                "scores": {key: round(math.fsum(values) / len(values), 4) for key, values in scores.items()},
                "other": {
                    key: round(math.fsum(row.other[key] for row in mine) / len(mine), 4) for key in mine[0].other
                },
                "tokens_per_word": mine[0].tokens_per_word,
                "spread": {key: round(max(values) - min(values), 4) for key, values in scores.items()},
                "seconds": round(math.fsum(row.seconds for row in mine) / len(mine), 1),
                "megabytes": round(max(row.megabytes for row in mine)),
            }
        )
    return sorted(table, key=_rank)


def _rank(line: dict[str, Any]) -> float:
    scores = line["scores"]
    if "accuracy" in scores:
        return -float(scores["accuracy"])
    return float(scores[max(scores, key=int)])


def split_corpus(
    pairs: Sequence[tuple[str, str]], share: float = 0.1, characters: int = 1_500
) -> tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]], list[str]]:
    """Split a corpus: training pairs, the last ``share`` of the pairs, and the documents of their target side.

    The end of a corpus is often another text than its beginning, so nothing of it was seen. Documents are neighbouring
    lines of some ``characters`` in all.

    Raises `VocabTransferError` when the corpus is too small to be split.
    """
    cut = len(pairs) - math.ceil(len(pairs) * share)
    if cut < 1 or cut == len(pairs):
        raise VocabTransferError(f"{len(pairs)} sentence pairs are too few to hold some out for measuring.")
    return pairs[:cut], pairs[cut:], join_lines((target for _, target in pairs[cut:]), characters)


def join_lines(lines: Iterable[str], characters: int = 1_500) -> list[str]:
    """Return neighbouring lines as documents of some ``characters`` in all."""
    documents, joined, length = list[str](), list[str](), 0
    for line in lines:
        joined.append(line)
        length += len(line)
        if length >= characters:
            documents.append("\n".join(joined))
            joined, length = [], 0
    return [*documents, "\n".join(joined)] if joined else documents
