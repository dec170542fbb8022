"""The part of OpenAI's HTTP interface that is served: what requests may say, and the shape of answers and errors."""

import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
#: Settings that would change the answer and that this server does not have, with the values that ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "n": (1, None),
    "best_of": (1, None),
    "echo": (False, None),
    "suffix": (None, ""),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
}


class ApiProblem(Exception):
    """An answer that is an error, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What goes into the answer's headers."""
        return {} if self.retry_after is None else {"Retry-After": str(max(1, self.retry_after))}


class Pair(BaseModel):
    """The head that reads the prompt, and the one that writes the answer."""

    model_config = ConfigDict(strict=True, extra="forbid")
    input: str
    output: str


class StreamOptions(BaseModel):
    """Whether a stream ends with the numbers of tokens."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False


class Settings(BaseModel):
    """What both kinds of requests say."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str
    head: str | Pair | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wanted_tokens(self) -> int | None:
        """The tokens an answer may have, where the request says it."""
        raise NotImplementedError


class CompletionRequest(Settings):
    """A text to go on from, or its ids."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]
    max_tokens: int | None = Field(16, ge=1)

    @property
    def wanted_tokens(self) -> int | None:
        """OpenAI's default for completions is 16 tokens."""
        return self.max_tokens or 16


class TextPart(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def plain(self) -> dict[str, str]:
        """What chat templates take."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Settings):
    """A conversation to answer."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def wanted_tokens(self) -> int | None:
        """The newer name goes before the older one."""
        return self.max_completion_tokens or self.max_tokens


# What pydantic puts into a place to say which form of a value it tried.
_FORM = re.compile(r"str|[A-Z].*|.*[\[-].*")
Request = TypeVar("Request", bound=Settings)


def read_request(kind: type[Request], body: bytes) -> Request:
    """Return a checked request. Raises `ApiProblem` 400 that says what is wrong."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as problem:
        # Where several forms are allowed, the complaint that goes deepest is about the form that was meant.
        worst = max(problem.errors(include_url=False, include_context=False), key=lambda error: len(error["loc"]))
        place = ".".join(str(part) for part in worst["loc"] if not _FORM.fullmatch(str(part)))
        message = f"{place}: {worst['msg']}." if place else f"The body is not what is asked for: {worst['msg']}."
        raise ApiProblem(400, message, param=place or None) from None
    for name, harmless in UNSUPPORTED.items():
        value = (request.model_extra or {}).get(name)
        if value not in harmless:
            raise ApiProblem(400, f"{name} is not supported by this server: leave it out.", param=name)
    return request


@dataclass(frozen=True)
class Answer:
    """The frame of one answer: everything but the text."""

    chat: bool
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish: str, prompt_tokens: int, tokens: int) -> dict[str, Any]:
        """Return the answer in one piece."""
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        return {**self._frame(""), "choices": [choice], "usage": usage(prompt_tokens, tokens)}

    def piece(self, text: str, finish: str | None, *, first: bool) -> bytes:
        """Return one server-sent event with new text."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        delta |= {"content": text} if text or first else {}
        content = {"delta": delta} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        return sent({**self._frame(".chunk"), "choices": [choice]})

    def count(self, prompt_tokens: int, tokens: int) -> bytes:
        """Return the server-sent event with the numbers of tokens."""
        return sent({**self._frame(".chunk"), "choices": [], "usage": usage(prompt_tokens, tokens)})

    def _frame(self, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self.chat else "text_completion"
        name = f"chatcmpl-{self.id}" if self.chat else f"cmpl-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model}


def usage(prompt_tokens: int, tokens: int) -> dict[str, int]:
    """Return the numbers of tokens read, made, and both."""
    return {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}


def sent(data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
