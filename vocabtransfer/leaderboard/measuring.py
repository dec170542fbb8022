"""The measuring of a contest: rows are made, put into the model, and scored."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.evaluation.probe import probe
from vocabtransfer.evaluation.retrieval import retrieval, sentence_vectors
from vocabtransfer.leaderboard.contest import Contest, Entry, Precision, Row, Scores, load_rows, save_rows
from vocabtransfer.progress import say, track
from vocabtransfer.running.half_body import halve_body, products_in_bfloat16
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.plan import needs_memory, own_device
from vocabtransfer.running.swap_tables import with_tables
from vocabtransfer.surgery.transfer import transfer


def run_contest(
    contest: Contest, entries: Sequence[Entry], *, seeds: Sequence[int] = (0,), results: Path | None = None
) -> list[Row]:
    """Measure every entry with every seed; rows that are already in ``results`` are not measured again.

    Raises:
        UsageError: ``results`` holds rows of another contest, or there is nothing to measure on.
        VocabTransferError: what the methods and the scoring raise.
    """
    causal = contest.source.continues_text
    if not (contest.test if causal else contest.test_pairs):
        raise UsageError("There is no held-out text to measure on.")
    rows = {(row.label, row.seed): row for row in (load_rows(results, contest) if results else [])}
    wanted = [(entry, seed) for seed in seeds for entry in entries if (entry.label, seed) not in rows]
    model = load_model(contest.source, contest.precision) if wanted else None
    vectors = source_vectors(contest, model) if model is not None and not causal else None
    for entry, seed in track(wanted, "methods"):
        assert model is not None, "it is loaded when something is wanted"
        rows[entry.label, seed] = _measure(contest, entry, seed, model, vectors)
        if results is not None:
            save_rows(results, contest, list(rows.values()))
    order = {entry.label: i for i, entry in enumerate(entries)}
    return sorted((row for row in rows.values() if row.label in order), key=lambda row: (order[row.label], row.seed))


def load_model(source: Checkpoint, precision: Precision = "float32") -> PreTrainedModel:
    """Load what is scored: a causal model with its head, or an encoder's body (always float32).

    On the CPU unless `running_with` says otherwise. Raises `VocabTransferError` when there is too little memory for it.
    """
    device = own_device()
    say(needs_memory(f"Measuring on {source.name}", 4 * source.parameters, device))
    if source.continues_text:
        causal = load_causal_model(source.path, device, torch.float32)
        if precision == "bfloat16":
            halve_body(causal)
        return causal
    model: Any = AutoModel.from_pretrained(source.path, dtype=torch.float32, local_files_only=True)
    return cast(PreTrainedModel, model.to(device).eval())


def scored_in(precision: Precision) -> AbstractContextManager[None]:
    """Return what a contest of that precision is scored in: the head's products too may take bfloat16 factors."""
    return products_in_bfloat16() if precision == "bfloat16" else nullcontext()


def _measure(
    contest: Contest, entry: Entry, seed: int, model: PreTrainedModel, vectors: NDArray[np.float32] | None
) -> Row:
    started = time.perf_counter()
    with _peak_memory() as peak:
        result = transfer(
            contest.source,
            contest.tokenizer,
            contest.evidence,
            method=entry.method,
            calibrate=entry.asked,
            norm=entry.norm,
            seed=seed,
        )
        table = result.table("input")
        assert table is not None, "every model has an input table"
        head, bias = (result.table("output"), result.table("bias")) if contest.source.continues_text else (None, None)
    seconds = time.perf_counter() - started
    with with_tables(model, table, head, bias), scored_in(contest.precision):
        found = (
            _bits(contest, seed, model)
            if contest.source.continues_text
            else Scores(_accuracies(contest, model, vectors))
        )
    return Row(
        entry.label,
        seed,
        found.scores,
        round(seconds, 2),
        round(peak[0] / 1e6, 1),
        found.other,
        found.tokens_per_word,
        found.cpu_seconds,
    )


def score_tables(
    contest: Contest,
    model: PreTrainedModel,
    table: torch.Tensor,
    head: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    seed: int = 0,
) -> Scores:
    """Score tables made by whatever means, as the contest scores those of its methods; see `with_tables`."""
    vectors = None if contest.source.continues_text else source_vectors(contest, model)
    with with_tables(model, table, head, bias), scored_in(contest.precision):
        if contest.source.continues_text:
            return _bits(contest, seed, model)
        return Scores(_accuracies(contest, model, vectors))


def _bits(contest: Contest, seed: int, model: PreTrainedModel) -> Scores:
    if contest.updates:
        return probed_scores(contest, model, contest.tokenizer, contest.updates, seed=seed)
    return scores_at_once(contest, model, contest.tokenizer)


def scores_at_once(contest: Contest, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Scores:
    """Score a model as it is with the contest's text, and with that of another kind where there is some."""
    score = bits_per_byte(model, tokenizer, contest.test, max_bytes=contest.max_bytes)
    other = {}
    if contest.other:
        elsewhere = bits_per_byte(model, tokenizer, contest.other, max_bytes=contest.max_bytes)
        other["0"] = round(elsewhere.bits_per_byte, 4)
    return Scores({"0": round(score.bits_per_byte, 4)}, other, round(score.tokens_per_word, 3))


def probed_scores(
    contest: Contest,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    updates: Sequence[int],
    *,
    seed: int,
    until_cpu_seconds: float | None = None,
) -> Scores:
    """Score a model with the contest's text before and after ``updates`` of its tables; see `probe`."""
    probed = probe(
        model,
        tokenizer,
        contest.documents,
        contest.test,
        updates=updates,
        learning_rate=contest.learning_rate,
        batch_tokens=contest.batch_tokens,
        seed=seed,
        max_eval_bytes=contest.max_bytes,
        other_documents=contest.other,
        until_cpu_seconds=until_cpu_seconds,
    )
    return Scores(
        {str(done): round(bits, 4) for done, bits in probed.bits_per_byte.items()},
        {str(done): round(score.bits_per_byte, 4) for done, score in probed.other.items()},
        round(probed.scores[0].tokens_per_word, 3),
        {str(done): round(seconds, 4) for done, seconds in probed.cpu_seconds.items()},
    )


def _accuracies(contest: Contest, model: PreTrainedModel, vectors: NDArray[np.float32] | None) -> dict[str, float]:
    assert vectors is not None, "an encoder is measured against the source's sentence vectors"
    target = sentence_vectors(model, contest.tokenizer, [target for _, target in contest.test_pairs])
    found = retrieval(vectors, target)
    return {
        "accuracy": round(found.accuracy, 4),
        "to source": round(found.to_source, 4),
        "to target": round(found.to_target, 4),
    }


def source_vectors(contest: Contest, model: PreTrainedModel) -> NDArray[np.float32]:
    """Return what the untouched model makes of the source sentences; the same for all methods."""
    with with_tables(model, contest.source.input_table().float()):
        return sentence_vectors(model, contest.source.tokenizer, [source for source, _ in contest.test_pairs])


@contextmanager
def _peak_memory() -> Iterator[list[float]]:
    """Give a list whose only item is, at the end, the most memory in bytes that the block took beyond the start."""
    process, peak, ended = psutil.Process(), [0.0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
