"""What the routes share: who may ask and how often, and the way of a request to the engine."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator

from fastapi import Request, Response
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from vocabtransfer.serving.asking import Asking
from vocabtransfer.serving.engine import Draining, Engine, QueueFull, log
from vocabtransfer.serving.exchange import GONE, Exchange
from vocabtransfer.serving.jobs import Event
from vocabtransfer.serving.metrics import Metrics
from vocabtransfer.serving.protocol import ApiProblem, Settings, read_request


class Service:
    """What the routes share: the engine, the limits, and who may ask."""

    def __init__(self, engine: Engine, name: str, api_key: str | None) -> None:
        self.engine, self.limits = engine, engine.limits
        self.asking = Asking(engine.model, name, engine.limits)
        self.metrics = Metrics(engine)
        self.started = int(time.time())
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
        try:
            body = await self.body(http)
        except ClientDisconnect:
            log.warning("a client went away while it sent its request")
            return Response(status_code=GONE)
        request = read_request(kind, body)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def emit(index: int, event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, (index, event))

        jobs = await run_in_threadpool(self.asking.jobs, request, emit, arrived + self.limits.seconds)
        try:
            self.engine.submit(*jobs)
        except QueueFull:
            raise ApiProblem(
                429, "Too many requests wait already: try again later.", code="queue_full", retry_after=1
            ) from None
        except Draining:
            raise _stopping() from None
        exchange = Exchange(self.metrics, request, jobs, events, arrived)
        return exchange.stream() if request.stream else await exchange.whole(http)


def _stopping() -> ApiProblem:
    return ApiProblem(503, "The server is stopping: try another one.", code="stopping", retry_after=5)


@contextlib.asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ApiProblem(408, "The body did not come in time.") from None
