"""A short training of the vocabulary tables alone: which initialisation is the better start, not only the better guess.

The loss right after a transfer does not say which tables will learn fastest (a flat distribution can look good), so two
initialisations are compared both at once and after some fifty updates of nothing but their tables.
"""

import heapq
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation.bits_per_byte import BitsPerByte, bits_per_byte
from vocabtransfer.evaluation.scoring import document_separator
from vocabtransfer.evaluation.texts import encode_batches
from vocabtransfer.optimizer import HELD, TableAdamW
from vocabtransfer.progress import track

_WARM_UP = 10
_IGNORED = -100
# More characters than a token has on average in any language, so that a sample of the text has tokens enough.
_CHARACTERS_PER_TOKEN = 8
# Logits and their gradients of one pass: 128 Mi float32 numbers are 512 MiB, which 1,024 x 131,072 just fits.
_LOGITS_AT_A_TIME = 1 << 27


@dataclass(frozen=True)
class ProbeResult:
    """Bits per byte of the evaluation documents by number of updates (0 first), and what it took to get there.

    ``losses`` are the mean training losses of the updates in nats a token; ``trained_tokens`` counts repetitions.
    ``cpu_seconds`` are those of the training up to each number of updates, without the scoring, all threads together;
    ``other`` are scores on other documents.
    """

    scores: dict[int, BitsPerByte]
    losses: tuple[float, ...]
    trained_tokens: int
    learning_rate: float
    seconds: float
    cpu_seconds: dict[int, float] = field(default_factory=dict)
    other: dict[int, BitsPerByte] = field(default_factory=dict)

    @property
    def bits_per_byte(self) -> dict[int, float]:
        """Bits per byte by number of updates."""
        return {updates: score.bits_per_byte for updates, score in self.scores.items()}


def probe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    train_documents: Iterable[str],
    eval_documents: Sequence[str],
    *,
    updates: Sequence[int] = (50,),
    learning_rate: float = 3e-4,
    batch_tokens: int = 512,
    block: int = 128,
    seed: int = 0,
    max_eval_bytes: int | None = None,
    other_documents: Sequence[str] = (),
    until_cpu_seconds: float | None = None,
) -> ProbeResult:
    """Train the input table and the head of ``model`` for a while, measure, and put everything back as it was.

    The body is frozen, a tied table stays tied, dropout is off. As many of ``train_documents`` as the largest of
    ``updates`` needs are drawn by ``seed`` from all over them, the same whatever the tokenizer, and cut into blocks of
    ``block`` tokens, each behind the document separator; a text too short is repeated in a new order. An update is one
    `TableAdamW` step (rows held, no weight decay, gradients cut at norm 1) on ``batch_tokens`` of them, at a
    ``learning_rate`` that is constant after 10 updates of warm-up. The evaluation documents are scored as by
    `bits_per_byte`, before the first update and after each number in ``updates``; so are ``other_documents``, text of
    another kind, if there are any.

    With ``until_cpu_seconds`` the largest number of updates is a limit: training ends, with a last score, after the update
    at which so much CPU time went into training.

    Deterministic for given inputs, seed and number of threads. The model's parameters must be float32.

    Raises `UsageError` for numbers that make no sense and `VocabTransferError` when there is no text, when the model
    does not fit the tokenizer or is not causal, and when training diverges to NaN.
    """
    wanted = sorted(set(updates))
    _check_arguments(model, wanted, learning_rate, batch_tokens, block)
    started = time.perf_counter()
    score: dict[int, BitsPerByte] = {}
    other: dict[int, BitsPerByte] = {}
    cpu: dict[int, float] = {0: 0.0}

    def measure(done: int) -> None:
        score[done] = bits_per_byte(model, tokenizer, eval_documents, max_bytes=max_eval_bytes)
        if other_documents:
            other[done] = bits_per_byte(model, tokenizer, other_documents, max_bytes=max_eval_bytes)

    measure(0)
    separator = document_separator(model, tokenizer)
    rows_per_update = max(batch_tokens // block, 1)
    needed = wanted[-1] * rows_per_update
    sample = _sample(train_documents, needed * block * _CHARACTERS_PER_TOKEN, seed)
    blocks = _blocks(tokenizer, sample, separator, block, needed)
    losses: list[float] = []
    spent = 0.0
    with _trainable_tables(model) as tables:
        optimizer = _optimizer(tables, learning_rate)
        batches = _batches(blocks, rows_per_update, wanted[-1], seed)
        for done, batch in enumerate(track(batches, "Probing", total=wanted[-1]), 1):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(done / _WARM_UP, 1.0)
            began = time.process_time()
            losses.append(_update(model, optimizer, tables, batch, separator))
            spent += time.process_time() - began
            over = until_cpu_seconds is not None and spent >= until_cpu_seconds
            if done in wanted or over:
                cpu[done] = spent
                measure(done)
            if over:
                break
    return ProbeResult(
        scores=score,
        losses=tuple(losses),
        trained_tokens=len(losses) * rows_per_update * (blocks.shape[1] - 1),
        learning_rate=learning_rate,
        seconds=time.perf_counter() - started,
        cpu_seconds=cpu,
        other=other,
    )


def _check_arguments(
    model: PreTrainedModel, updates: list[int], learning_rate: float, batch_tokens: int, block: int
) -> None:
    if not updates or updates[0] < 1:
        raise UsageError("updates must name at least one number of updates, each 1 or more.")
    if not learning_rate > 0:
        raise UsageError(f"The learning rate is {learning_rate}: it must be above 0.")
    if block < 1 or batch_tokens < block:
        raise UsageError(f"batch_tokens is {batch_tokens} and block {block}: a batch must hold a block of 1 or more.")
    if model.get_input_embeddings().weight.dtype != torch.float32:
        raise UsageError("A probe needs float32 parameters: open the model with dtype=torch.float32.")


def _optimizer(tables: list[Tensor], learning_rate: float) -> TableAdamW:
    """Return what `adapt` steps tables with: a head's bias as AdamW does, fused on CPUs, matrices with their rows held."""
    matrices, biases = ([table for table in tables if (table.dim() == 2) is wanted] for wanted in (True, False))
    groups: list[dict[str, Any]] = [{"params": matrices, HELD: True}]
    groups += [{"params": biases}] if biases else []
    return TableAdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=tables[0].device.type == "cpu" or None)


def _sample(documents: Iterable[str], characters: int, seed: int) -> list[str]:
    """Return random documents of some ``characters`` in all, in random order; only they are held in memory."""
    chance = np.random.default_rng(seed)
    kept: list[tuple[float, int, str]] = []  # a heap, the document with the highest number on top
    total = 0
    for place, document in enumerate(documents):
        heapq.heappush(kept, (-chance.random(), place, document))
        total += len(document)
        while total - len(kept[0][2]) >= characters:
            total -= len(heapq.heappop(kept)[2])
    return [document for _, _, document in sorted(kept, reverse=True)]


def _blocks(
    tokenizer: PreTrainedTokenizerFast, documents: Iterable[str], separator: int, block: int, needed: int
) -> NDArray[np.int64]:
    """Return at most ``needed`` blocks (blocks, 1 + block): the separator, then ``block`` tokens of joined documents.

    A text too short for one block gives one that is as long as the text.
    """
    parts: list[NDArray[np.int64]] = []
    total = 0
    for _, encoding in encode_batches(tokenizer, documents):
        # Separators part the documents inside a block as they do in front of it.
        parts += [np.array([*ids, separator], dtype=np.int64) for ids in encoding["input_ids"]]
        total = sum(map(len, parts))
        if total >= needed * block:
            break
    if not total:
        raise VocabTransferError("There is no text to train on: every document is empty.")
    stream = np.concatenate(parts)[: needed * block]
    width = min(block, len(stream))
    stream = stream[: len(stream) // width * width].reshape(-1, width)
    return np.concatenate((np.full((len(stream), 1), separator, dtype=np.int64), stream), axis=1)


def _batches(blocks: NDArray[np.int64], rows: int, updates: int, seed: int) -> Iterator[Tensor]:
    """Yield ``updates`` batches int64 (rows, 1 + block); when the blocks run out, they come again in a new order."""
    order = np.random.default_rng(seed)
    left: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for _ in range(updates):
        while len(left) < rows:
            left = np.concatenate((left, order.permutation(len(blocks))))
        yield torch.from_numpy(blocks[left[:rows]])
        left = left[rows:]


def _update(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, tables: list[Tensor], batch: Tensor, separator: int
) -> float:
    """Make one step on a batch (rows, 1 + block), in as many passes as memory asks for; return its loss in nats."""
    batch = batch.to(model.device)
    # Nothing is learned about where a document ends: the evaluation does not ask for it.
    targets = batch[:, 1:].masked_fill(batch[:, 1:] == separator, _IGNORED)
    counted = max(int((targets != _IGNORED).sum()), 1)
    size = max(_LOGITS_AT_A_TIME // (len(tables[0]) * targets.shape[1]), 1)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for inputs, wanted in zip(batch[:, :-1].split(size), targets.split(size), strict=True):
        logits = model(input_ids=inputs, use_cache=False).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum") / counted
        loss.backward()
        total += loss.item()
    if not np.isfinite(total):
        raise VocabTransferError("The probe's loss became NaN or infinite: lower the learning rate.")
    torch.nn.utils.clip_grad_norm_(tables, 1.0)
    optimizer.step()
    return total


@contextmanager
def _trainable_tables(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Give the table parameters (input table, head, head bias), the only ones trainable; restore all afterwards."""
    input_table, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = [input_table.weight, head.weight, getattr(head, "bias", None)]
    tables = list({id(table): table for table in found if table is not None}.values())
    saved = [table.detach().clone() for table in tables]
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    model.eval()
    model.requires_grad_(False)
    for table in tables:
        table.requires_grad_(True)
    try:
        yield tables
    finally:
        with torch.no_grad():
            for table, before in zip(tables, saved, strict=True):
                table.copy_(before)
                table.grad = None
        for parameter, before_training in required:
            parameter.requires_grad_(before_training)
        model.train(training)
