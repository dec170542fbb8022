"""From a checked request to a job: which heads, which tokens, and how many more fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.serving.engine import log
from vocabtransfer.serving.jobs import Event, Job, Limits, Sampling
from vocabtransfer.serving.protocol import ApiProblem, ChatRequest, CompletionRequest, Pair, Settings


@dataclass(frozen=True)
class Asking:
    """What turns requests into jobs for one model, which clients call ``name``."""

    model: HydraForCausalLM
    name: str
    limits: Limits

    @property
    def models(self) -> list[str]:
        """The names that a request may give as ``model``, but for bare names of heads."""
        return [self.name, *(f"{self.name}:{head}" for head in self.model.heads)]

    def heads(self, request: Settings) -> tuple[str, str]:
        """Return the names of the heads that read and write. Raises `ApiProblem` 404 for names that there are not."""
        names = self.model.heads
        own = names[0]
        prefix = f"{self.name}:"
        if request.model in names:
            own = request.model
        elif request.model.startswith(prefix):
            own = request.model.removeprefix(prefix)
        elif request.model != self.name:
            raise ApiProblem(
                404, f"There is no model {request.model!r}; see /v1/models.", code="model_not_found", param="model"
            )
        wanted = request.head if request.head is not None else own
        pair = (wanted.input, wanted.output) if isinstance(wanted, Pair) else (wanted, wanted)
        for head in pair:
            if head not in names:
                raise ApiProblem(
                    404,
                    f"There is no head {head!r}; there are {', '.join(names)}.",
                    code="model_not_found",
                    param="head" if request.head is not None else "model",
                )
        return pair

    def job(self, request: Settings, emit: Callable[[Event], None], deadline: float) -> Job:
        """Return the job of a request. Raises `ApiProblem`; takes the time that a head takes to load."""
        reader, writer = (self._head(name) for name in self.heads(request))
        prompt = self._prompt(request, reader)
        if not prompt:
            raise ApiProblem(400, "The prompt is empty.", param="prompt")
        if len(prompt) > self.limits.prompt_tokens:
            raise ApiProblem(
                400,
                f"The prompt has {len(prompt)} tokens, more than the {self.limits.prompt_tokens} that are read.",
                code="context_length_exceeded",
                param="prompt",
            )
        sampling = Sampling(
            self._tokens(request, len(prompt)), request.temperature, request.top_p, request.seed, request.stops
        )
        return Job(reader, writer, prompt, sampling, emit, deadline)

    def _head(self, name: str) -> LoadedHead:
        try:
            head = self.model.head(name)
            _ = head.tokenizer  # read when it is first used
        except VocabTransferError:
            # What is wrong names files of this machine, which are nobody's business outside.
            log.exception("the head %s cannot be used", name)
            raise ApiProblem(500, f"The head {name!r} cannot be used; the server's log says why.") from None
        return head

    def _prompt(self, request: Settings, reader: LoadedHead) -> list[int]:
        if isinstance(request, ChatRequest):
            return reader.encode([_rendered(request, reader)], special=False)[0]
        assert isinstance(request, CompletionRequest)
        prompt: Any = request.prompt
        if isinstance(prompt, list) and isinstance(prompt[0] if prompt else 0, int):
            wrong = next((i for i in prompt if not 0 <= i < reader.rows), None)
            if wrong is not None:
                raise ApiProblem(400, f"The head {reader.name!r} has no token {wrong}.", param="prompt")
            return list(prompt)
        text = prompt[0] if isinstance(prompt, list) else prompt
        return reader.encode([text], special=True)[0] if text else []

    def _tokens(self, request: Settings, prompt: int) -> int:
        """Return the most tokens that the answer may have."""
        wanted = request.wanted_tokens
        places = getattr(self.model.backbone.config.get_text_config(), "max_position_embeddings", None)
        room = min(self.limits.new_tokens, places - prompt if isinstance(places, int) else self.limits.new_tokens)
        if room < 1 or (wanted is not None and wanted > room):
            raise ApiProblem(
                400,
                f"{wanted or 1} new tokens after a prompt of {prompt} are more than the {max(0, room)} that there is "
                "room for.",
                code="context_length_exceeded",
                param="max_tokens",
            )
        return wanted or room


def _rendered(request: ChatRequest, reader: LoadedHead) -> str:
    if not reader.tokenizer.chat_template:
        raise ApiProblem(400, f"The head {reader.name!r} has no chat template: use /v1/completions.", param="model")
    messages = [message.plain for message in request.messages]
    try:
        return str(reader.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as problem:  # templates refuse orders of roles that they do not know, each in its own way
        raise ApiProblem(400, f"The chat template does not take these messages: {problem}", param="messages") from None
