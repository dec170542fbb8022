"""One request inside the engine: what is to be generated, and what is told about it on the way."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from vocabtransfer.hydra.loaded import LoadedHead

Finish = Literal["stop", "length"]
Failure = Literal["timeout", "internal", "stopped"]


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    ``rows`` requests are generated together and ``queue`` more may wait; ``prompt_tokens`` and ``new_tokens`` bound one
    request, ``body_bytes`` its size on the wire, ``seconds`` the time from its arrival to its last token.
    ``prefill_tokens`` bounds the prompts, padding included, that are read in one pass between two tokens of the others.
    ``rate`` is a rate such as "600/minute" for each client; None for no limit.
    """

    rows: int = 16
    queue: int = 64
    prompt_tokens: int = 4096
    new_tokens: int = 1024
    body_bytes: int = 1 << 20
    seconds: float = 300.0
    prefill_tokens: int = 2048
    rate: str | None = "600/minute"


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. ``temperature`` 0 takes the likeliest; None for either does what the head's settings say."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """News of a job: new text (maybe none) with the number of tokens so far, and at the end why it ended."""

    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    failure: Failure | None = None

    @property
    def last(self) -> bool:
        """Whether nothing comes after this."""
        return self.finish is not None or self.failure is not None


@dataclass(eq=False)
class Job:
    """A prompt in the ids of the head that reads, to be gone on from with the head that writes.

    ``emit`` is called with every event, in the engine's thread; it must not block. ``cancel`` may be called from any
    thread: the job is dropped before its next token, and no event follows.
    """

    reader: LoadedHead
    writer: LoadedHead
    prompt: list[int]
    sampling: Sampling
    emit: Callable[[Event], None]
    deadline: float = float("inf")
    cancelled: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Give the job up."""
        self.cancelled = True

    @property
    def late(self) -> bool:
        """Whether its time is over (`time.monotonic`)."""
        return time.monotonic() > self.deadline

    @property
    def body(self) -> LoadedHead | None:
        """The head whose LoRA the body wears for this job; None for the plain body, which most heads share."""
        return self.writer if self.writer.adapter is not None else None
