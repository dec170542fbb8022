"""The thread that generates for all requests at once: new rows join and finished ones leave between two tokens."""

import logging
import threading
from collections import deque
from collections.abc import Callable

import torch

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.serving.jobs import Event, Failure, Finish, Job, Limits
from vocabtransfer.serving.rows import Row, RowBatch

log = logging.getLogger("vocabtransfer.serving")

#: Kinds of layers whose memory is keys and values, which is what rows can bring along and take away.
ATTENTION = frozenset({"full_attention", "sliding_attention"})


class QueueFull(Exception):
    """As many jobs wait as may."""


class Draining(Exception):
    """No new jobs are taken on: the engine is about to stop."""


class Engine:
    """Generates for jobs of any heads of a Hydra together.

    Between two tokens, waiting jobs come in (first come, first served) as long as there are rows for them. All rows
    without a LoRA take one pass of the body a token, whatever their heads; rows of a head with a LoRA take one of their
    own. Every row ends by itself: its neighbours neither wait for it nor change what it says, but for rounding in the
    last bits, which decides between tokens only where two are as likely.
    """

    def __init__(self, model: HydraForCausalLM, limits: Limits) -> None:
        """Start the thread. Raises `VocabTransferError` for bodies that are not made of attention layers."""
        kinds = set(getattr(model.backbone.config.get_text_config(), "layer_types", None) or ()) - ATTENTION
        if kinds:
            raise VocabTransferError(f"a model with {min(kinds)} layers cannot be served yet: use generate.")
        self.model, self.limits = model, limits
        self.steps = 0  # passes of the body for one more token
        self.row_steps = 0  # tokens that came of them
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._batches: dict[LoadedHead | None, RowBatch] = {}
        self._draining = self._closed = False
        self._coming = 0  # jobs that have left the queue and are not yet in a batch
        self._thread = threading.Thread(target=self._work, name="vocabtransfer-engine", daemon=True)
        self._thread.start()

    def submit(self, *jobs: Job) -> None:
        """Take on jobs, all or none. Raises `QueueFull` or `Draining`."""
        with self._changed:
            if self._draining or self._closed:
                raise Draining
            self._waiting = deque(other for other in self._waiting if not other.cancelled)
            if len(self._waiting) + len(jobs) > self.limits.queue + max(0, self.limits.rows - self.running):
                raise QueueFull
            self._waiting.extend(jobs)
            self._changed.notify()

    def drain(self) -> None:
        """Take on nothing more; what was taken on is finished."""
        with self._changed:
            self._draining = True

    def close(self) -> None:
        """Stop after the present token; jobs that are not finished end with the failure "stopped"."""
        with self._changed:
            self._draining = self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def draining(self) -> bool:
        """Whether new jobs are refused."""
        return self._draining

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Jobs that are being generated."""
        return self._coming + sum(len(batch.rows) for batch in list(self._batches.values()))

    @property
    def waiting(self) -> int:
        """Jobs that wait for a row."""
        return len(self._waiting)

    # The thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._waiting and not self._batches:
                    self._changed.wait()
                if self._closed:
                    break
                dropped, fresh = self._admit()
            for job in dropped:
                _fail(job, "timeout")
            with torch.no_grad():
                for body, jobs in _by_body(fresh).items():
                    self._start(body, jobs)
                for body in list(self._batches):
                    self._advance(body)
        for job in [*self._waiting, *(row.job for batch in self._batches.values() for row in batch.rows)]:
            _fail(job, "stopped")
        self._waiting.clear()
        self._batches.clear()

    def _admit(self) -> tuple[list[Job], list[Job]]:
        """Return the waiting jobs whose time is over, and those that come in now."""
        waiting = [job for job in self._waiting if not job.cancelled]
        late = [job for job in waiting if job.late]
        waiting = [job for job in waiting if not job.late]
        fresh: list[Job] = []
        longest = 0
        for job in waiting[: max(0, self.limits.rows - self.running)]:
            longest = max(longest, len(job.prompt))
            if fresh and longest * (len(fresh) + 1) > self.limits.prefill_tokens:
                break
            fresh.append(job)
        self._waiting = deque(waiting[len(fresh) :])
        self._coming = len(fresh)
        return late, fresh

    def _start(self, body: LoadedHead | None, jobs: list[Job]) -> None:
        batch = self._batches.setdefault(body, RowBatch(self.model))
        rows: list[Row] = []

        def join() -> list[torch.Tensor]:
            rows.extend(Row(job, self.model.device) for job in jobs)
            return batch.join(rows)

        logits = self._guarded(body, join, jobs)
        self._coming -= len(jobs)
        if logits is not None:
            self._deliver(body, rows, logits)

    def _advance(self, body: LoadedHead | None) -> None:
        batch = self._batches[body]
        late = [row for row in batch.rows if row.job.late and not row.job.cancelled]
        for row in late:
            _fail(row.job, "timeout", len(row.text.tokens))
        batch.keep([row for row in batch.rows if not row.job.cancelled and row not in late])
        if batch.rows:
            rows = list(batch.rows)
            logits = self._guarded(body, batch.step, [])
            if logits is not None:
                self.steps += 1
                self.row_steps += len(rows)
                self._deliver(body, rows, logits)
        if body in self._batches and not self._batches[body].rows:
            del self._batches[body]

    def _guarded(
        self, body: LoadedHead | None, work: Callable[[], list[torch.Tensor]], jobs: list[Job]
    ) -> list[torch.Tensor] | None:
        """Run a pass; should it fail (no memory, say), its jobs fail, and the engine goes on with the others."""
        try:
            return work()
        except Exception:
            log.exception("a pass through the model failed")
            batch = self._batches.pop(body)
            for job in dict.fromkeys([*jobs, *(row.job for row in batch.rows)]):
                _fail(job, "internal")
            return None

    def _deliver(self, body: LoadedHead | None, rows: list[Row], logits: list[torch.Tensor]) -> None:
        """Choose every row's token, let the rows go that are done, and tell the jobs.

        In this order, so that whoever hears the end of an answer finds its place free.
        """
        events = [_choose(row, scores) for row, scores in zip(rows, logits, strict=True)]
        done = {row for row, event in zip(rows, events, strict=True) if event.last}
        batch = self._batches[body]
        batch.keep([row for row in batch.rows if row not in done])
        for row, event in zip(rows, events, strict=True):
            _tell(row.job, event)


def _choose(row: Row, scores: torch.Tensor) -> Event:
    """Choose one row's token and return what its job is to hear."""
    try:
        piece, ended = row.take(scores)
        done = ended or row.full
        piece += row.text.close() if done else ""
    except Exception:
        log.exception("choosing a token failed")
        return Event("", len(row.text.tokens), None, "internal")
    finish: Finish | None = ("stop" if ended or row.text.stopped else "length") if done else None
    return Event(piece, len(row.text.tokens), finish, scored=row.scored(finish))


def _by_body(jobs: list[Job]) -> dict[LoadedHead | None, list[Job]]:
    groups: dict[LoadedHead | None, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.body, []).append(job)
    return groups


def _fail(job: Job, failure: Failure, tokens: int = 0) -> None:
    _tell(job, Event("", tokens, None, failure))


def _tell(job: Job, event: Event) -> None:
    if job.cancelled:
        return
    try:
        job.emit(event)
    except Exception:  # whoever asked is gone; nothing of it may reach the other rows
        log.debug("nobody hears of a job any more", exc_info=True)
        job.cancel()
