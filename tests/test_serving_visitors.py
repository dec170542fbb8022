"""Which names of hosts and which pages a server lets in, and what is said of clients that leave."""

import logging
import socket
import time
from collections.abc import Iterator

import pytest
from hydra_samples import Sample, make_sample, one_thread  # noqa: F401
from serving_samples import SECONDS, Client, Running, serving

from vocabtransfer.errors import UsageError
from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.serving import Limits
from vocabtransfer.serving.visitors import Visitors


@pytest.fixture(scope="module")
def running(model: HydraForCausalLM) -> Iterator[Running]:
    with serving(model, Limits(rate=None, body_bytes=10**6)) as made:
        yield made


STRANGERS = ("evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5")
STRANGERS += ("localhost@evil.example", "127.0.0.1:{port}/x", "[::1", "127.0.0.1:x", "localhost, evil.example")


@pytest.mark.parametrize("host", STRANGERS)
def test_a_name_that_is_not_this_machines_is_refused(running: Running, host: str) -> None:
    host = host.format(port=running.client.port)
    for method, path, body in (("GET", "/v1/models", None), ("POST", "/v1/completions", {}), ("GET", "/health", None)):
        reply = running.client.ask(method, path, body, {"Host": host})
        assert reply.status == 403 and reply.error["code"] == "host_not_allowed"
        assert "--allow-host" in reply.error["message"] and reply.error["type"] == "permission_error"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:{port}", "127.0.0.1", "127.0.0.2:80", "[::1]:{port}", "a.localhost"]
)
def test_this_machines_own_names_are_let_in(running: Running, host: str) -> None:
    assert running.client.ask("GET", "/health", headers={"Host": host.format(port=running.client.port)}).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1"])
def test_pages_of_other_sites_are_refused(running: Running, origin: str) -> None:
    for method, path, body in (
        ("GET", "/v1/models", None),
        ("POST", "/v1/completions", {}),
        ("OPTIONS", "/health", None),
    ):
        reply = running.client.ask(method, path, body, {"Origin": origin})
        assert reply.status == 403 and "--allow-origin" in reply.error["message"]
        assert "access-control-allow-origin" not in reply.headers


def test_its_own_origin_is_let_in(running: Running) -> None:
    origin = f"http://127.0.0.1:{running.client.port}"
    assert running.client.ask("GET", "/v1/models", headers={"Origin": origin}).status == 200


def test_names_and_pages_that_were_allowed(model: HydraForCausalLM) -> None:
    visitors = Visitors("127.0.0.1", ["gpu-server"], ["https://chat.example"])
    with serving(model, Limits(rate=None), visitors=visitors) as made:
        client = made.client
        assert client.ask("GET", "/health", headers={"Host": "GPU-server:80"}).status == 200
        assert client.ask("GET", "/health", headers={"Host": "other"}).status == 403
        page = {"Origin": "https://chat.example"}
        assert client.ask("GET", "/health", headers=page).headers["access-control-allow-origin"] == page["Origin"]
        asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        assert client.ask("OPTIONS", "/v1/completions", headers=asked).status == 200
        assert client.ask("GET", "/health", headers={"Origin": "https://chat.example.evil.example"}).status == 403


def test_on_other_addresses_addresses_are_let_in_but_no_strange_names() -> None:
    visitors = Visitors("0.0.0.0")
    for host in ("192.168.1.5:8000", "[fe80::1]:8000", "localhost", socket.gethostname(), "127.0.0.1"):
        assert visitors.knows(host)
    assert not visitors.knows("evil.example")
    assert Visitors("0.0.0.0", ["*"]).knows("evil.example")
    assert Visitors("0.0.0.0", (), ["*"]).welcomes("https://evil.example", "localhost")
    assert Visitors("gpu.lan").knows("gpu.lan:8000")


@pytest.mark.parametrize(("hosts", "origins"), [(["a/b"], []), ([""], []), ([], ["chat.example"]), ([], [""])])
def test_names_that_are_none(hosts: list[str], origins: list[str]) -> None:
    with pytest.raises(UsageError, match=r"`(hosts|origins)`"):
        Visitors("127.0.0.1", hosts, origins)


def test_a_client_that_leaves_while_it_sends_is_one_line(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for begin in (b"", b'{"model": "hy'):
        caplog.clear()
        with socket.create_connection(("127.0.0.1", running.client.port), timeout=SECONDS) as connection:
            lines = ["POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
            connection.sendall("\r\n".join([*lines, "Content-Length: 1000", "", ""]).encode() + begin)
            time.sleep(0.2)
        end = time.monotonic() + SECONDS
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # for whatever else may come
        said = [record for record in caplog.records if record.levelno >= logging.INFO]
        assert [record.getMessage() for record in said] == ["a client went away while it sent its request"]
        assert said[0].exc_info is None
    assert Client(running.client.port).complete("hello").status == 200
