"""One request and its answer: what the engine says of its jobs is sent on, whole or as it comes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from vocabtransfer.serving.answers import DONE, Answer, Choice, sent
from vocabtransfer.serving.asking import prompt_texts
from vocabtransfer.serving.jobs import Event, Job
from vocabtransfer.serving.metrics import Metrics
from vocabtransfer.serving.protocol import ApiProblem, ChatRequest, CompletionRequest, Settings

FAILURES = {
    "timeout": (504, "The answer took too long; ask for fewer tokens or try again later."),
    "internal": (500, "The model failed on this request; the server's log says why."),
    "stopped": (503, "The server was stopped before the answer was done."),
}
#: The status, which nobody reads, of an answer whose client is gone (nginx's number).
GONE = 499


class Exchange:
    """The jobs of one request, all choices of the first prompt before those of the second, and their events."""

    def __init__(
        self,
        metrics: Metrics,
        request: Settings,
        jobs: list[Job],
        events: "asyncio.Queue[tuple[int, Event]]",
        arrived: float,
    ) -> None:
        self._metrics, self._jobs, self._events, self._arrived = metrics, jobs, events, arrived
        prompts = jobs[:: request.n or 1]
        self._prompt_tokens = sum(len(job.prompt) for job in prompts)
        metrics.tokens.labels(jobs[0].reader.name, "prompt").inc(self._prompt_tokens)
        self._begins = [""] * len(jobs)
        if isinstance(request, CompletionRequest) and request.echo:
            self._begins = [text for text in prompt_texts(request, jobs[0].reader) for _ in range(request.n or 1)]
        self._answer = Answer(
            isinstance(request, ChatRequest),
            request.model,
            jobs[0].writer.vocabulary if request.wanted_logprobs is not None else None,
            request.stream_options is not None and bool(request.stream_options.include_usage),
        )

    def stream(self) -> Response:
        """Return an answer that is sent as it is made."""
        return _Stream(self._jobs, self._pieces())

    async def whole(self, http: Request) -> Response:
        """Return the answer when it is made. Raises `ApiProblem`; gives up when the client goes away."""
        work = asyncio.ensure_future(self._collect())
        gone = asyncio.ensure_future(_gone(http))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=GONE)
            choices = work.result()
        finally:
            _cancel(self._jobs)
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        return JSONResponse(self._answer.whole(choices, self._prompt_tokens))

    async def _news(self) -> AsyncGenerator[tuple[int, Event]]:
        """Yield the events of all jobs and count them; however it ends, no job goes on after it."""
        tokens = [0] * len(self._jobs)
        left = set(range(len(self._jobs)))
        try:
            while left:
                index, event = await self._events.get()
                if not any(tokens) and event.tokens:
                    self._metrics.first.observe(time.monotonic() - self._arrived)
                tokens[index] = event.tokens
                if event.last:
                    left.discard(index)
                yield index, event
        finally:
            _cancel(self._jobs)
            self._metrics.tokens.labels(self._jobs[0].writer.name, "generated").inc(sum(tokens))
            self._metrics.seconds.observe(time.monotonic() - self._arrived)

    async def _collect(self) -> list[Choice]:
        choices = [Choice(text) for text in self._begins]
        async with contextlib.aclosing(self._news()) as news:
            async for index, event in news:
                if event.failure is not None:
                    raise ApiProblem(*FAILURES[event.failure], code=event.failure)
                choice = choices[index]
                choice.text += event.text
                choice.tokens, choice.finish = event.tokens, event.finish
                choice.scored += event.scored
        return choices

    async def _pieces(self) -> AsyncGenerator[bytes]:
        tokens = [0] * len(self._jobs)
        fresh = set(range(len(self._jobs)))
        async with contextlib.aclosing(self._news()) as news:
            async for index, event in news:
                if event.failure is not None:
                    yield sent(ApiProblem(*FAILURES[event.failure], code=event.failure).body)
                    break
                tokens[index] = event.tokens
                first = index in fresh
                if event.text or event.last or event.scored or first:
                    text = self._begins[index] + event.text if first else event.text
                    yield self._answer.piece(index, text, event.finish, event.scored, first=first)
                    fresh.discard(index)
        if self._answer.counted:
            yield self._answer.count(self._prompt_tokens, sum(tokens))
        yield DONE


class _Stream(StreamingResponse):
    """A stream of server-sent events whose jobs end with its connection."""

    def __init__(self, jobs: list[Job], pieces: AsyncGenerator[bytes]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._jobs, self._pieces = jobs, pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            _cancel(self._jobs)
            await self._pieces.aclose()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _cancel(jobs: list[Job]) -> None:
    for job in jobs:
        job.cancel()
