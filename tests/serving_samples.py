"""A server on the loopback for the tests, and a client that speaks plain HTTP."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.serving import Engine, Limits
from vocabtransfer.serving.app import create_app
from vocabtransfer.serving.server import Server, listen, run_server

SECONDS = 60  # nothing takes this long; it keeps a broken server from holding the suite up


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.json["error"])

    @property
    def text(self) -> str:
        return str(self.json["choices"][0]["text"])


class Client:
    """Asks one server; every call has a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        connection = self.open(method, path, body, headers)
        try:
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def open(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPConnection:
        """Send a request and return the connection it was sent on."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, data, {**sent, **(headers or {})})
        return connection

    def complete(self, prompt: Any, **settings: Any) -> Reply:
        """Ask for a greedy completion."""
        body = {"model": "hydra", "prompt": prompt, "temperature": 0, "max_tokens": 6, **settings}
        return self.ask("POST", "/v1/completions", body)

    def stream(self, path: str, body: dict[str, Any]) -> tuple[list[Any], bytes]:
        """Ask for a stream; return its events, and the last line."""
        reply = self.ask("POST", path, {"stream": True, **body})
        assert reply.status == 200 and reply.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix(b"data: ") for line in reply.body.split(b"\n\n") if line]
        return [json.loads(line) for line in lines[:-1]], lines[-1]

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@dataclass
class Running:
    """A server under way."""

    client: Client
    engine: Engine
    server: Server
    thread: threading.Thread


@contextlib.contextmanager
def serving(model: HydraForCausalLM, limits: Limits | None = None, **settings: Any) -> Iterator[Running]:
    """Serve a model as "hydra" while the block runs."""
    engine = Engine(model, limits or Limits(rate=None))
    server = Server(create_app(engine, "hydra", **settings), engine)
    place = listen("127.0.0.1", 0)
    thread = threading.Thread(target=run_server, args=(server, place))
    thread.start()
    try:
        yield Running(Client(place.getsockname()[1]), engine, server, thread)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        place.close()
        assert not thread.is_alive() and not engine.alive
