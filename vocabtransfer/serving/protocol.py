"""The part of OpenAI's HTTP interface that is served: what requests may say, and the shape of errors."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
TokenId = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,9})$")]
Penalty = Annotated[float, Field(ge=-2, le=2)]
#: Settings that would change the answer and that this server does not have, with the values that ask for nothing.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
}
#: Settings of OpenAI's that say nothing about the text: who asks, what is kept, and where.
IGNORED = frozenset(
    {
        *("metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
        *("service_tier", "store", "tool_choice", "function_call", "user"),
    }
)


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
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
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
    include_usage: bool | None = False


class Settings(BaseModel):
    """What both kinds of requests say.

    ``top_k``, ``min_p`` and ``repetition_penalty`` are vLLM's, everything else is OpenAI's. A penalty outside of 0.01 to
    100 would leave what float32 can hold.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    model: str
    head: str | Pair | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: int | None = Field(1, ge=1, le=128)
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

    @property
    def wanted_logprobs(self) -> int | None:
        """How many of the likeliest tokens are told with each token; None for no log probabilities at all."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `ApiProblem` for settings that do not go together."""
        if self.stream_options is not None and not self.stream:
            raise ApiProblem(400, "stream_options are for streams: set stream to true.", param="stream_options")


class CompletionRequest(Settings):
    """One or several texts to go on from, or their ids."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = False
    best_of: int | None = Field(None, ge=1)

    @property
    def wanted_tokens(self) -> int | None:
        """OpenAI's default for completions is 16 tokens."""
        return self.max_tokens or 16

    @property
    def wanted_logprobs(self) -> int | None:
        """Those of the request."""
        return self.logprobs

    def check(self) -> None:
        """Raise `ApiProblem` for settings that do not go together."""
        super().check()
        if self.best_of not in (None, self.n or 1):
            raise ApiProblem(
                400, "best_of other than n is not supported by this server: leave it out.", param="best_of"
            )
        if self.echo and self.logprobs is not None:
            raise ApiProblem(400, "echo with logprobs is not supported by this server: ask for one.", param="echo")


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
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def wanted_tokens(self) -> int | None:
        """The newer name goes before the older one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """A chat asks for log probabilities with one setting and for their number with another."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def check(self) -> None:
        """Raise `ApiProblem` for settings that do not go together."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiProblem(400, "top_logprobs goes with logprobs: set logprobs to true.", param="top_logprobs")


# What pydantic puts into a place to say which form of a value it tried.
_FORM = re.compile(r"str|[A-Z].*|.*[\[-].*")
Request = TypeVar("Request", bound=Settings)


def _nearness(error: ErrorDetails) -> tuple[int, bool]:
    """Where several forms are allowed, the complaint that goes deepest is about the form that was meant; so is one that is
    not about the type."""
    return len(error["loc"]), not error["type"].endswith("_type")


def read_request(kind: type[Request], body: bytes) -> Request:
    """Return a checked request. Raises `ApiProblem` 400 that says what is wrong."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as problem:
        worst = max(problem.errors(include_url=False, include_context=False), key=_nearness)
        place = ".".join(str(part) for part in worst["loc"] if not _FORM.fullmatch(str(part)))
        said = "should be the number of a token" if worst["type"] == "string_pattern_mismatch" else worst["msg"]
        message = f"{place}: {said}." if place else f"The body is not what is asked for: {said}."
        raise ApiProblem(400, message, param=place or None) from None
    for name, value in (request.model_extra or {}).items():
        if value is None or value in UNSUPPORTED.get(name, ()) or name in IGNORED:
            continue
        said = "is not supported by this server" if name in UNSUPPORTED else "is no setting that this server knows"
        raise ApiProblem(400, f"{name[:100]} {said}: leave it out.", param=name[:100])
    request.check()
    return request
