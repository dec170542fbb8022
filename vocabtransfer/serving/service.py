"""Answering a request: check it, give it to the engine, and send what comes back, whole or as it comes."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.concurrency import run_in_threadpool

from vocabtransfer.serving.asking import Asking
from vocabtransfer.serving.engine import Draining, Engine, QueueFull
from vocabtransfer.serving.jobs import Event, Job
from vocabtransfer.serving.metrics import Metrics
from vocabtransfer.serving.protocol import DONE, Answer, ApiProblem, ChatRequest, Settings, read_request, sent

FAILURES = {
    "timeout": (504, "The answer took too long; ask for fewer tokens or try again later."),
    "internal": (500, "The model failed on this request; the server's log says why."),
    "stopped": (503, "The server was stopped before the answer was done."),
}


class Service:
    """What the routes share: the engine, the limits, and who may ask."""

    def __init__(self, engine: Engine, name: str, api_key: str | None) -> None:
        self.engine, self.limits = engine, engine.limits
        self.asking = Asking(engine.model, name, engine.limits)
        self.metrics = Metrics(engine)
        self._key = api_key
        self._rate = parse(self.limits.rate) if self.limits.rate else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def check(self, request: Request) -> None:
        """Refuse clients without the key, and those that ask too often; `ApiProblem`."""
        if self._key is not None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
            # Headers come as Latin-1 whatever their bytes mean; a key from the environment is UTF-8.
            if not hmac.compare_digest(given.encode("latin-1"), self._key.encode()):
                raise ApiProblem(
                    401, "The API key is missing or wrong: send it as a bearer token.", code="invalid_api_key"
                )
        if self._rate is None or request.method != "POST":
            return
        client = request.client.host if request.client else ""
        if not await self._limiter.hit(self._rate, client):
            window = await self._limiter.get_window_stats(self._rate, client)
            seconds = int(window.reset_time - time.time()) + 1
            raise ApiProblem(
                429, f"More than {self._rate}: try again later.", code="rate_limit_exceeded", retry_after=seconds
            )

    async def body(self, request: Request) -> bytes:
        """Return a request's body; `ApiProblem` 415 when it is not called JSON, 413 when it is too large."""
        # Pages of other sites can make a browser post forms and plain text to a server on this machine, but not this.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiProblem(415, "Send JSON with the header Content-Type: application/json.")
        most = self.limits.body_bytes
        data = bytearray()
        announced = request.headers.get("content-length", "")
        too_large = announced.isdigit() and int(announced) > most
        if not too_large:
            async with _patience(self.limits.seconds):
                async for chunk in request.stream():
                    data += chunk
                    if too_large := len(data) > most:
                        break
        if too_large:
            raise ApiProblem(413, f"The body is larger than the {most} bytes that are read.")
        return bytes(data)

    async def answer(self, http: Request, kind: type[Settings]) -> Response:
        """Answer a request for text."""
        arrived = time.monotonic()
        if self.engine.draining:
            raise _stopping()
        request = read_request(kind, await self.body(http))
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job = await run_in_threadpool(self.asking.job, request, emit, arrived + self.limits.seconds)
        try:
            self.engine.submit(job)
        except QueueFull:
            raise ApiProblem(
                429, "Too many requests wait already: try again later.", code="queue_full", retry_after=1
            ) from None
        except Draining:
            raise _stopping() from None
        self.metrics.tokens.labels(job.reader.name, "prompt").inc(len(job.prompt))
        news = self._news(job, events, arrived)
        frame = Answer(kind is ChatRequest, request.model)
        if request.stream:
            counted = request.stream_options is not None and request.stream_options.include_usage
            return _Stream(job, self._streamed(job, news, frame, counted))
        return await self._collected(http, job, news, frame)

    async def _news(self, job: Job, events: "asyncio.Queue[Event]", arrived: float) -> AsyncGenerator[Event]:
        """Yield a job's events and count them; however it ends, the job does not go on after it."""
        tokens = 0
        try:
            while True:
                event = await events.get()
                if not tokens and event.tokens:
                    self.metrics.first.observe(time.monotonic() - arrived)
                tokens = event.tokens
                yield event
                if event.last:
                    return
        finally:
            job.cancel()
            self.metrics.tokens.labels(job.writer.name, "generated").inc(tokens)
            self.metrics.seconds.observe(time.monotonic() - arrived)

    async def _collected(self, http: Request, job: Job, news: AsyncGenerator[Event], frame: Answer) -> Response:
        async def collect() -> tuple[str, Event]:
            text = ""
            async for event in news:
                text += event.text
            return text, event

        work = asyncio.ensure_future(collect())
        gone = asyncio.ensure_future(_gone(http))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=499)  # nobody reads it
            text, last = work.result()
        finally:
            job.cancel()
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if last.failure is not None:
            raise ApiProblem(*FAILURES[last.failure], code=last.failure)
        return JSONResponse(frame.whole(text, str(last.finish), len(job.prompt), last.tokens))

    async def _streamed(
        self, job: Job, news: AsyncGenerator[Event], frame: Answer, counted: bool
    ) -> AsyncGenerator[bytes]:
        first = True
        async with contextlib.aclosing(news):
            async for event in news:
                if event.failure is not None:
                    yield sent(ApiProblem(*FAILURES[event.failure], code=event.failure).body)
                elif event.text or event.last or first:
                    yield frame.piece(event.text, event.finish, first=first)
                    first = False
        if counted:
            yield frame.count(len(job.prompt), event.tokens)
        yield DONE


class _Stream(StreamingResponse):
    """A stream of server-sent events whose job ends with its connection."""

    def __init__(self, job: Job, pieces: AsyncGenerator[bytes]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._job, self._pieces = job, pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.cancel()
            await self._pieces.aclose()


@contextlib.asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ApiProblem(408, "The body did not come in time.") from None


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _stopping() -> ApiProblem:
    return ApiProblem(503, "The server is stopping: try another one.", code="stopping", retry_after=5)
