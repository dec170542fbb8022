"""A server on one socket that ends well: it refuses new requests, finishes those it has, and then stops."""

import asyncio
import logging
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.serving.engine import Engine


class Server(uvicorn.Server):
    """uvicorn, with a stop in two steps.

    The first signal (SIGTERM or Ctrl-C) or `stop` makes the engine refuse new requests, which are answered with 503
    while the others go on. When they are done, or ``patience`` seconds later, or at a second signal, the server ends.
    """

    def __init__(self, app: FastAPI, engine: Engine, *, patience: float = 60.0) -> None:
        # The lifespan protocol has nothing to do here; logging is the caller's.
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=10)
        super().__init__(config)
        self._engine, self._patience = engine, patience
        self._stop_at: float | None = None

    def stop(self) -> None:
        """Begin to stop; may be called from any thread."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._patience
            self._engine.drain()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, at the second signal at once."""
        if self._stop_at is not None:
            self.should_exit = True
        # The signal came into the middle of whatever this thread does, which may hold the engine's lock.
        self._stop_at = self._stop_at or time.monotonic() + self._patience

    async def on_tick(self, counter: int) -> bool:
        """Tell whether to end now."""
        if self._stop_at is not None:
            self._engine.drain()
            done = not self._engine.running and not self._engine.waiting
            if done or time.monotonic() > self._stop_at or not self._engine.alive:
                self.should_exit = True
        if self.should_exit:
            await asyncio.get_running_loop().run_in_executor(None, self._engine.close)
        return await super().on_tick(counter)

    def close(self) -> None:
        """Close the engine; a server that is told to end before it has started never ticks."""
        self._engine.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises `VocabTransferError` when the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as problem:
        raise VocabTransferError(
            f"cannot listen on {host} port {port} ({problem.strerror or problem}): choose another `host` or `port`."
        ) from None


def run_server(server: Server, place: socket.socket) -> None:
    """Serve on a socket until the server is stopped; the engine is closed at the end, whatever ended it."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        asyncio.run(server.serve(sockets=[place]))
    finally:
        server.close()
