"""From a checked request to a job: which heads, which tokens, and how many more fit."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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

    def jobs(self, request: Settings, emit: Callable[[int, Event], None], deadline: float) -> list[Job]:
        """Return the jobs of a request, all choices of the first prompt before those of the second.

        ``emit`` is told a job's place among them with each event. Raises `ApiProblem`; takes the time that a head takes
        to load.
        """
        reader, writer = (self._head(name) for name in self.heads(request))
        if request.wanted_logprobs is not None:
            _named_tokens(writer)
        bias = _bias(request, writer)
        prompts = self._prompts(request, reader)
        choices = request.n or 1
        most = min(self.limits.choices, self.limits.rows + self.limits.queue)
        if len(prompts) * choices > most:
            raise ApiProblem(
                400,
                f"{len(prompts) * choices} answers are more than the {most} that one request may ask for: "
                "send fewer prompts, or a smaller n.",
                param="n" if choices > 1 else "prompt",
            )
        jobs: list[Job] = []
        for prompt in prompts:
            tokens = self._tokens(request, self._checked(prompt))
            for choice in range(choices):
                sampling = _sampling(request, writer, tokens, choice, bias)
                jobs.append(Job(reader, writer, prompt, sampling, partial(emit, len(jobs)), deadline))
        return jobs

    def _head(self, name: str) -> LoadedHead:
        try:
            head = self.model.head(name)
            _ = head.tokenizer  # read when it is first used
        except VocabTransferError:
            # What is wrong names files of this machine, which are nobody's business outside.
            log.exception("the head %s cannot be used", name)
            raise ApiProblem(500, f"The head {name!r} cannot be used; the server's log says why.") from None
        return head

    def _prompts(self, request: Settings, reader: LoadedHead) -> list[list[int]]:
        if isinstance(request, ChatRequest):
            return reader.encode([_rendered(request, reader)], special=False)
        assert isinstance(request, CompletionRequest)
        prompts = []
        for prompt in _several(request.prompt):
            if isinstance(prompt, str):
                prompts.append(reader.encode([prompt], special=True)[0] if prompt else [])
                continue
            wrong = next((i for i in prompt if not 0 <= i < reader.rows), None)
            if wrong is not None:
                raise ApiProblem(400, f"The head {reader.name!r} has no token {wrong}.", param="prompt")
            prompts.append(list(prompt))
        return prompts

    def _checked(self, prompt: list[int]) -> int:
        """Return a prompt's length in tokens."""
        if not prompt:
            raise ApiProblem(400, "The prompt is empty.", param="prompt")
        if len(prompt) > self.limits.prompt_tokens:
            raise ApiProblem(
                400,
                f"The prompt has {len(prompt)} tokens, more than the {self.limits.prompt_tokens} that are read.",
                code="context_length_exceeded",
                param="prompt",
            )
        return len(prompt)

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


def prompt_texts(request: CompletionRequest, reader: LoadedHead) -> list[str]:
    """Return the texts of the prompts of a completion, as they are echoed."""
    return [each if isinstance(each, str) else reader.decode(each) for each in _several(request.prompt)]


def _several(prompt: Any) -> list[Any]:
    """Return the prompts of a request, each a text or ids: one alone is not in a list."""
    one = isinstance(prompt, str) or not prompt or isinstance(prompt[0], int)
    return [prompt] if one else list(prompt)


def _sampling(request: Settings, writer: LoadedHead, tokens: int, choice: int, bias: dict[int, float]) -> Sampling:
    temperature, seed = request.temperature, request.seed
    if temperature is None and (request.n or 1) > 1:  # several answers are wanted to differ
        temperature = float(writer.generation_config.temperature or 1.0)
    if seed is not None and choice:
        seed = random.Random(f"{seed} {choice}").getrandbits(63)  # the first choice is that of a request for one
    return Sampling(
        tokens,
        temperature,
        request.top_p,
        seed,
        request.stops,
        top_k=None if request.top_k is None else max(0, request.top_k),
        min_p=request.min_p,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=request.repetition_penalty,
        logit_bias=bias,
        logprobs=request.wanted_logprobs,
    )


def _bias(request: Settings, writer: LoadedHead) -> dict[int, float]:
    bias = {int(token): value for token, value in (request.logit_bias or {}).items()}
    wrong = next((token for token in bias if token >= writer.rows), None)
    if wrong is not None:
        raise ApiProblem(400, f"The head {writer.name!r} has no token {wrong}.", param="logit_bias")
    return bias


def _named_tokens(head: LoadedHead) -> None:
    """Read what a head's tokens stand for, which takes a while at the first time."""
    try:
        _ = head.vocabulary
    except VocabTransferError:
        log.exception("the tokens of the head %s cannot be named", head.name)
        raise ApiProblem(
            400, f"The head {head.name!r} cannot give logprobs: leave them out.", param="logprobs"
        ) from None


def _rendered(request: ChatRequest, reader: LoadedHead) -> str:
    if not reader.tokenizer.chat_template:
        raise ApiProblem(400, f"The head {reader.name!r} has no chat template: use /v1/completions.", param="model")
    messages = [message.plain for message in request.messages]
    try:
        return str(reader.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as problem:  # templates refuse orders of roles that they do not know, each in its own way
        raise ApiProblem(400, f"The chat template does not take these messages: {problem}", param="messages") from None
