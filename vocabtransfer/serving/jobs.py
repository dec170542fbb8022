"""One request inside the engine: what is to be generated, and what is told about it on the way."""

import time
from collections.abc import Callable, Mapping
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
    ``choices`` bounds the answers (prompts times ``n``) of one request.
    ``rate`` is a rate such as "600/minute" for each client; None for no limit.
    """

    rows: int = 16
    queue: int = 64
    prompt_tokens: int = 4096
    new_tokens: int = 1024
    body_bytes: int = 1 << 20
    seconds: float = 300.0
    prefill_tokens: int = 2048
    choices: int = 64
    rate: str | None = "600/minute"


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    ``temperature`` 0 takes the likeliest. None for a value does what the head's settings say. ``top_k`` 0 takes all
    tokens. The presence and frequency penalties go by the new tokens, ``repetition_penalty`` by those of the prompt as
    well. ``logit_bias`` is added to the logits of ids. With ``logprobs`` every token is told with its log probability
    and those of so many of the likeliest, in nats, before all of these settings.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None


@dataclass(frozen=True)
class Scored:
    """A token of an answer: its log probability in nats, the likeliest tokens with theirs, and where its text begins."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    offset: int


@dataclass(frozen=True)
class Event:
    """News of a job: new text (maybe none) with the number of tokens so far, and at the end why it ended.

    ``scored`` are the tokens of the new text, where log probabilities were asked for; an end token is not among them.
    """

    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    failure: Failure | None = None
    scored: tuple[Scored, ...] = ()

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
