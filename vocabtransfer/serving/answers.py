"""The shape of answers, as OpenAI has it: whole, or piece by piece as server-sent events."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vocabtransfer.serving.jobs import Scored
from vocabtransfer.vocabulary import Vocabulary

DONE = b"data: [DONE]\n\n"


@dataclass
class Choice:
    """One answer to one prompt, as far as it is known."""

    text: str = ""
    tokens: int = 0
    finish: str | None = None
    scored: list[Scored] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """The frame of the answer to one request: everything but the text.

    ``vocabulary`` names the tokens where log probabilities were asked for. ``counted`` streams end with the usage.
    """

    chat: bool
    model: str
    vocabulary: Vocabulary | None = None
    counted: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
        """Return the answer in one piece."""
        made = []
        for index, choice in enumerate(choices):
            content = {"message": {"role": "assistant", "content": choice.text}} if self.chat else {"text": choice.text}
            made.append(self._choice(index, content, choice.finish, choice.scored))
        tokens = sum(choice.tokens for choice in choices)
        return {**self._frame(""), "choices": made, "usage": usage(prompt_tokens, tokens)}

    def piece(self, index: int, text: str, finish: str | None, scored: Sequence[Scored], *, first: bool) -> bytes:
        """Return one server-sent event with new text of one choice."""
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        delta |= {"content": text} if text or first else {}
        content = {"delta": delta} if self.chat else {"text": text}
        count = {"usage": None} if self.counted else {}
        return sent({**self._frame(".chunk"), "choices": [self._choice(index, content, finish, scored)], **count})

    def count(self, prompt_tokens: int, tokens: int) -> bytes:
        """Return the server-sent event with the numbers of tokens."""
        return sent({**self._frame(".chunk"), "choices": [], "usage": usage(prompt_tokens, tokens)})

    def _choice(
        self, index: int, content: Mapping[str, Any], finish: str | None, scored: Sequence[Scored]
    ) -> dict[str, Any]:
        logprobs = None
        if self.vocabulary is not None:
            logprobs = _chat_logprobs(self.vocabulary, scored) if self.chat else _logprobs(self.vocabulary, scored)
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}

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


def _chat_logprobs(vocabulary: Vocabulary, scored: Sequence[Scored]) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        content = _bytes(vocabulary, token)
        return {"token": content.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(content)}

    content = [
        {**entry(each.token, each.logprob), "top_logprobs": [entry(*other) for other in each.top]} for each in scored
    ]
    return {"content": content, "refusal": None}


def _logprobs(vocabulary: Vocabulary, scored: Sequence[Scored]) -> dict[str, Any]:
    # The token itself is always among the likeliest ones, so there may be one more of them than was asked for.
    top = [
        dict([*((_name(vocabulary, i), value) for i, value in each.top), _named(vocabulary, each)]) for each in scored
    ]
    return {
        "tokens": [_name(vocabulary, each.token) for each in scored],
        "token_logprobs": [each.logprob for each in scored],
        "top_logprobs": top,
        "text_offset": [each.offset for each in scored],
    }


def _named(vocabulary: Vocabulary, each: Scored) -> tuple[str, float]:
    return _name(vocabulary, each.token), each.logprob


def _name(vocabulary: Vocabulary, token: int) -> str:
    """Return a token's text; parts of characters are written as OpenAI writes them, ``bytes:\\xe2\\x80``."""
    content = _bytes(vocabulary, token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def _bytes(vocabulary: Vocabulary, token: int) -> bytes:
    return vocabulary.context_bytes(token) if token < len(vocabulary) else b""  # padding rows have no text
