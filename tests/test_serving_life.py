"""A server under load, with a key, with clients that go away, and at its end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hydra_samples import Sample, make_sample, one_thread  # noqa: F401
from serving_samples import SECONDS, Client, serving
from vocabtransfer_cli import main

from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.serving import Engine, Limits
from vocabtransfer.serving.app import create_app
from vocabtransfer.serving.server import Server, listen, run_server


@pytest.fixture
def model(sample: Sample) -> HydraForCausalLM:
    return sample.load()


@contextlib.contextmanager
def held(model: HydraForCausalLM) -> Iterator[threading.Event]:
    """Hold every pass of the body until the event that is given is set."""
    go = threading.Event()
    hook = model.backbone.model.layers[0].register_forward_pre_hook(lambda *_: go.wait(SECONDS) and None)
    try:
        yield go
    finally:
        go.set()
        hook.remove()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def later(pool: ThreadPoolExecutor, client: Client, **settings: Any) -> Any:
    return pool.submit(client.complete, "hello", **settings)


def test_a_full_queue(model: HydraForCausalLM) -> None:
    limits = Limits(rows=1, queue=1, rate=None)
    with serving(model, limits) as running, held(model) as go, ThreadPoolExecutor() as pool:
        first = later(pool, running.client)
        until(lambda: running.engine.running == 1)
        second = later(pool, running.client)
        until(lambda: running.engine.waiting == 1)
        for stream in (False, True):
            refused = running.client.complete("hello", stream=stream)
            assert refused.status == 429 and refused.error["code"] == "queue_full"
            assert refused.error["type"] == "rate_limit_error" and int(refused.headers["retry-after"]) >= 1
        assert running.client.ask("GET", "/health").json == {"status": "ok", "running": 1, "waiting": 1}
        go.set()
        assert first.result().status == second.result().status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_go_away_free_their_place(model: HydraForCausalLM, stream: bool) -> None:
    with serving(model, Limits(rows=1, queue=1, rate=None)) as running, held(model) as go:
        body = {"model": "hydra", "prompt": "hello", "max_tokens": 200, "temperature": 2.0, "stream": stream}
        gone = [running.client.open("POST", "/v1/completions", body)]
        until(lambda: running.engine.running == 1)
        gone.append(running.client.open("POST", "/v1/completions", body))
        until(lambda: running.engine.waiting == 1)
        for connection in gone:
            connection.close()
        until(lambda: all(job.cancelled for job in running.engine._waiting))
        go.set()
        until(lambda: running.engine.running == 0)
        assert running.engine.row_steps < 100
        assert running.client.complete("hello").status == 200


def test_answers_that_take_too_long(model: HydraForCausalLM) -> None:
    with serving(model, Limits(rows=1, rate=None, seconds=0.3)) as running, held(model) as go:
        with ThreadPoolExecutor() as pool:
            replies = [later(pool, running.client) for _ in range(2)]
            until(lambda: running.engine.running + running.engine.waiting == 2)
            time.sleep(0.4)
            go.set()
            for reply in replies:
                assert reply.result().status == 504 and reply.result().error["code"] == "timeout"
        # Goes on; on a busy machine one answer may take longer than the limit.
        until(lambda: running.client.complete("hello", max_tokens=1).status == 200)


def test_a_stream_that_takes_too_long_says_so(model: HydraForCausalLM) -> None:
    with serving(model, Limits(rate=None, seconds=0.3)) as running, held(model) as go:
        body = {"model": "hydra", "prompt": "hello", "stream": True, "max_tokens": 50}
        connection = running.client.open("POST", "/v1/completions", body)
        response = connection.getresponse()
        time.sleep(0.4)
        go.set()
        lines = response.read().split(b"\n\n")
        assert json.loads(lines[-3].removeprefix(b"data: "))["error"]["code"] == "timeout"
        assert lines[-2] == b"data: [DONE]"
        connection.close()


def test_a_client_that_asks_too_often(model: HydraForCausalLM) -> None:
    with serving(model, Limits(rate="3/hour")) as running:
        replies = [running.client.complete("hello", max_tokens=1) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert replies[3].error["code"] == "rate_limit_exceeded"
        assert 1 <= int(replies[3].headers["retry-after"]) <= 3600
        assert running.client.ask("GET", "/health").status == 200


def test_a_key(model: HydraForCausalLM) -> None:
    with serving(model, api_key="sésame") as running:
        client, body = running.client, {"model": "hydra", "prompt": "hello", "max_tokens": 1}
        for headers in ({}, {"Authorization": "Bearer sesame"}, {"Authorization": "Bearer"}):
            refused = client.ask("POST", "/v1/completions", body, headers)
            assert refused.status == 401 and refused.error["type"] == "authentication_error"
        assert client.ask("GET", "/v1/models").status == client.ask("GET", "/metrics").status == 401
        assert client.ask("GET", "/health").status == 200
        right = {"Authorization": "Bearer sésame".encode().decode("latin-1")}
        assert client.ask("POST", "/v1/completions", body, right).status == 200


def test_stopping_finishes_what_runs_and_refuses_the_rest(model: HydraForCausalLM) -> None:
    with serving(model, Limits(rows=1, rate=None)) as running, held(model) as go:
        with ThreadPoolExecutor() as pool:
            replies = [later(pool, running.client) for _ in range(2)]
            until(lambda: running.engine.running == running.engine.waiting == 1)
            running.server.stop()
            refused = running.client.complete("hello")
            assert refused.status == 503 and "stopping" in refused.error["message"]
            assert int(refused.headers["retry-after"]) > 0
            health = running.client.ask("GET", "/health")
            assert (health.status, health.json["status"]) == (503, "stopping")
            go.set()
            assert [reply.result().status for reply in replies] == [200, 200]
        running.thread.join(SECONDS)
        assert not running.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            running.client.ask("GET", "/health")


def test_stopping_at_once_ends_what_runs(model: HydraForCausalLM) -> None:
    with serving(model, Limits(rows=1, rate=None)) as running, held(model) as go, ThreadPoolExecutor() as pool:
        replies = [later(pool, running.client, max_tokens=100) for _ in range(2)]
        until(lambda: running.engine.running == running.engine.waiting == 1)
        running.server.handle_exit(signal.SIGTERM, None)
        running.server.handle_exit(signal.SIGTERM, None)
        until(lambda: running.engine._closed)
        go.set()
        for reply in replies:
            assert reply.result().status == 503 and reply.result().error["code"] == "stopped"


def test_told_to_stop_before_it_started(model: HydraForCausalLM) -> None:
    engine = Engine(model, Limits(rate=None))
    server = Server(create_app(engine, "hydra"), engine)
    server.should_exit = True
    with contextlib.closing(listen("127.0.0.1", 0)) as place:
        run_server(server, place)
    assert not engine.alive


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_stop(sample: Sample) -> None:
    command = [sys.executable, "-m", "vocabtransfer_cli.main", "serve", str(sample.hydra), "--port", "0", "--json"]
    environment = {**os.environ, "VOCABTRANSFER_API_KEY": "sesame", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not said.endswith("}\n"):
                said += process.stdout.readline()
                assert process.poll() is None
            facts = json.loads(said)
            assert facts["model"] == "hydra" and facts["heads"] == ["english", "dutch", "tatar"]
            assert facts["url"].startswith("http://127.0.0.1:")
            client = Client(int(facts["url"].rsplit(":", 1)[1]))
            body = {"model": "hydra:tatar", "prompt": "сәлам", "max_tokens": 3}
            right = {"Authorization": "Bearer sesame"}
            assert client.ask("POST", "/v1/completions", body).status == 401
            assert client.ask("POST", "/v1/completions", body, right).status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--rate", "often"], 2, "--rate is a number and a time"),
        (["--dtype", "int3"], 2, "--dtype is one of"),
        (["--port", "{taken}"], 1, "choose another --host or --port"),
        (["--host", "nowhere.invalid"], 1, "cannot listen on nowhere.invalid"),
    ],
)
def test_failures_are_one_sentence(
    sample: Sample,
    model: HydraForCausalLM,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    said: str,
) -> None:
    with serving(model) as running, pytest.raises(SystemExit) as stop:
        words = [option.format(taken=running.client.port) for option in options]
        main.run(["serve", str(sample.hydra), *words, "--json"])
    assert stop.value.code == code
    assert said in json.loads(capsys.readouterr().out)["error"]


def test_without_the_extra(sample: Sample, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("vocabtransfer.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(SystemExit) as stop:
        main.run(["serve", str(sample.hydra), "--json"])
    assert stop.value.code == 1
    assert "pip install 'vocabtransfer[serve]'" in json.loads(capsys.readouterr().out)["error"]
