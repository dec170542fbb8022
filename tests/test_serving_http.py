"""The server over real HTTP on the loopback: answers, streams, heads by name, and errors in OpenAI's shape."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra_samples import TEXTS, Sample, make_sample, one_thread  # noqa: F401
from serving_samples import SECONDS, Client, serving

from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.serving import Limits

NAMES = ("english", "tatar", "dutch")
TEMPLATE = (
    "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('a user speaks first') }}{% endif %}"
    "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}</s>{% endif %}"
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    made = make_sample(tmp_path_factory.mktemp("sample"))
    (made.hydra / "chat_template.jinja").write_text(TEMPLATE)
    return made


@pytest.fixture(scope="module")
def client(model: HydraForCausalLM) -> Iterator[Client]:
    limits = Limits(rate=None, prompt_tokens=40, new_tokens=50, body_bytes=20_000, rows=8)
    with serving(model, limits) as running:
        yield running.client


def alone(model: HydraForCausalLM, reader: str, writer: str, text: str, tokens: int = 6) -> str:
    made = model.generate(**model.encode([(reader, text)], output=writer), max_new_tokens=tokens, do_sample=False)
    return str(model.decode(made, writer)[0])


def test_completions_in_every_head(client: Client, model: HydraForCausalLM) -> None:
    for name in NAMES:
        wanted = alone(model, name, name, TEXTS[name])
        for settings in ({"model": f"hydra:{name}"}, {"model": name}, {"head": name}, {"prompt": [TEXTS[name]]}):
            reply = client.complete(
                **{"prompt": TEXTS[name], "head": None if "model" in settings else name, **settings}
            )
            assert reply.status == 200 and reply.text == wanted
        answer = reply.json
        ids = model.head(name).encode([TEXTS[name]], special=True)[0]
        assert answer["object"] == "text_completion" and answer["model"] == "hydra"
        assert answer["usage"]["prompt_tokens"] == len(ids)
        assert answer["usage"]["total_tokens"] == len(ids) + answer["usage"]["completion_tokens"]
        assert answer["choices"][0]["finish_reason"] in ("stop", "length")
        assert client.complete(ids, head=name).text == wanted
    crossed = client.complete(TEXTS["english"], head={"input": "english", "output": "tatar"})
    assert crossed.text == alone(model, "english", "tatar", TEXTS["english"])
    assert client.complete(TEXTS["english"]).text == alone(model, "english", "english", TEXTS["english"])


def test_requests_at_the_same_time_in_different_heads(client: Client, model: HydraForCausalLM) -> None:
    wanted = {name: alone(model, name, name, TEXTS[name], 20) for name in NAMES}
    names = [NAMES[i % 3] for i in range(24)]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda name: client.complete(TEXTS[name], head=name, max_tokens=20), names))
    assert [reply.text for reply in replies] == [wanted[name] for name in names]


def test_streams(client: Client, model: HydraForCausalLM) -> None:
    body = {"model": "hydra:tatar", "prompt": TEXTS["tatar"], "temperature": 0, "max_tokens": 12}
    whole = client.ask("POST", "/v1/completions", body).json
    events, end = client.stream("/v1/completions", {**body, "stream_options": {"include_usage": True}})
    assert end == b"[DONE]"
    assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole["choices"][0]["text"]
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]][-1] == whole["choices"][0]["finish_reason"]
    assert all(event["choices"][0]["finish_reason"] is None for event in events[:-2])
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]
    assert len({event["id"] for event in events}) == 1 and len(events) > 3


def test_chat(client: Client, model: HydraForCausalLM) -> None:
    messages = [
        {"role": "system", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "the quick "}, {"type": "text", "text": "fox"}]},
    ]
    ids = model.head("english").encode(["<s>hello<s>the quick fox</s>"], special=False)[0]
    wanted = model.decode(model.generate(**model.encode([("english", ids)]), max_new_tokens=9, do_sample=False))[0]
    body = {"model": "hydra", "messages": messages, "temperature": 0, "max_completion_tokens": 9}
    answer = client.ask("POST", "/v1/chat/completions", body).json
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": wanted}
    events, _ = client.stream("/v1/chat/completions", body)
    assert events[0]["object"] == "chat.completion.chunk"
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == wanted
    assert events[-1]["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]


def test_sampling_and_stops(client: Client) -> None:
    hot: dict[str, Any] = {"head": "dutch", "temperature": 1.5, "max_tokens": 20}
    drawn = [client.complete("hallo", **hot, seed=seed).text for seed in (7, 7, 8)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert client.complete("hallo", **hot, seed=7, top_p=0.05).text != drawn[0]
    whole = client.complete(TEXTS["tatar"], head="tatar", max_tokens=30).text
    for stop in (whole[3:5], [whole[3:5], "x" * 9]):
        cut = client.complete(TEXTS["tatar"], head="tatar", max_tokens=30, stop=stop)
        assert cut.text == whole[: whole.index(whole[3:5])] and cut.json["choices"][0]["finish_reason"] == "stop"


def test_a_temperature_that_nothing_can_be_divided_by_is_greedy(client: Client, model: HydraForCausalLM) -> None:
    wanted = alone(model, "tatar", "tatar", TEXTS["tatar"])
    for cold in (1e-300, 5e-324, 9e-6):
        assert client.complete(TEXTS["tatar"], head="tatar", temperature=cold).text == wanted


def test_what_there_is(client: Client) -> None:
    models = client.ask("GET", "/v1/models").json
    names = [entry["id"] for entry in models["data"]]
    assert models["object"] == "list" and names == ["hydra", "hydra:english", "hydra:dutch", "hydra:tatar"]
    for name in ("hydra:tatar", "tatar"):
        assert client.ask("GET", f"/v1/models/{name}").json["object"] == "model"
    assert client.ask("GET", "/v1/models/hydra:frisian").status == 404
    health = client.ask("GET", "/health")
    assert health.status == 200 and health.json["status"] == "ok"


def test_metrics(client: Client) -> None:
    before = client.metric("vocabtransfer_tokens_total")
    reply = client.complete(TEXTS["dutch"], head="dutch")
    assert client.metric("vocabtransfer_tokens_total") == before + reply.json["usage"]["total_tokens"]
    page = client.ask("GET", "/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'vocabtransfer_requests_total{route="/v1/completions",status="200"}' in page.body.decode()
    assert client.metric("vocabtransfer_running") == client.metric("vocabtransfer_waiting") == 0
    assert client.metric("vocabtransfer_steps_total") > 0 and client.metric("vocabtransfer_request_seconds_count") > 0


@pytest.mark.parametrize(
    ("changes", "status", "said", "code"),
    [
        ({"model": "gpt-4"}, 404, "no model 'gpt-4'", "model_not_found"),
        ({"model": "hydra:frisian"}, 404, "no head 'frisian'", "model_not_found"),
        ({"model": "hydra:../dutch"}, 404, "no head '../dutch'", "model_not_found"),
        ({"model": "/etc/passwd"}, 404, "no model", "model_not_found"),
        ({"head": "heads/dutch"}, 404, "no head", "model_not_found"),
        ({"head": {"input": "english", "output": "x"}}, 404, "no head 'x'", "model_not_found"),
        ({"head": {"input": "english"}}, 400, "output", None),
        ({"prompt": ""}, 400, "prompt is empty", None),
        ({"prompt": []}, 400, "prompt is empty", None),
        ({"prompt": [5, 100_000]}, 400, "no token 100000", None),
        ({"prompt": [-1]}, 400, "no token -1", None),
        ({"prompt": ["a", ""]}, 400, "prompt is empty", None),
        ({"prompt": ["a", 7]}, 400, "prompt", None),
        ({"prompt": [[5], [100_000]]}, 400, "no token 100000", None),
        ({"prompt": ["a"] * 65}, 400, "65 answers are more than the 64", None),
        ({"prompt": ["a", "b"], "n": 33}, 400, "66 answers are more than the 64", None),
        ({"prompt": 7}, 400, "prompt", None),
        ({"prompt": "hello " * 60}, 400, "more than the 40", "context_length_exceeded"),
        ({"prompt": None}, 400, "prompt", None),
        ({"max_tokens": 51}, 400, "room for", "context_length_exceeded"),
        ({"max_tokens": 0}, 400, "max_tokens", None),
        ({"max_tokens": "6"}, 400, "max_tokens", None),
        ({"temperature": -1}, 400, "temperature", None),
        ({"temperature": 2.1}, 400, "temperature", None),
        ({"top_p": 0}, 400, "top_p", None),
        ({"stop": ["a"] * 5}, 400, "at most 4", None),
        ({"stop": ""}, 400, "stop", None),
        ({"seed": "x"}, 400, "seed", None),
        ({"top_k": -4}, 400, "top_k: ", None),
        ({"top_k": 1.5}, 400, "top_k: ", None),
        ({"min_p": 5}, 400, "min_p: ", None),
        ({"min_p": -0.1}, 400, "min_p: ", None),
        ({"repetition_penalty": 0}, 400, "repetition_penalty: ", None),
        ({"repetition_penalty": 1e-300}, 400, "repetition_penalty: ", None),
        ({"presence_penalty": 2.1}, 400, "presence_penalty: ", None),
        ({"frequency_penalty": "1"}, 400, "frequency_penalty: ", None),
        ({"logit_bias": {"5": 101}}, 400, "logit_bias", None),
        ({"logit_bias": {"a": 1}}, 400, "logit_bias.a: should be the number of a token", None),
        ({"logit_bias": {"100000": 1}}, 400, "no token 100000", None),
        ({"n": 0}, 400, "n: ", None),
        ({"n": 129}, 400, "n: ", None),
        ({"best_of": 3}, 400, "best_of other than n", None),
        ({"logprobs": -1}, 400, "logprobs: ", None),
        ({"logprobs": 21}, 400, "logprobs: ", None),
        ({"logprobs": True}, 400, "logprobs: ", None),
        ({"echo": True, "logprobs": 1}, 400, "echo with logprobs is not supported", None),
        ({"suffix": "x"}, 400, "suffix is not supported", None),
        ({"response_format": {"type": "json_object"}}, 400, "response_format is not supported", None),
        ({"temprature": 0.5}, 400, "temprature is no setting", None),
        ({"temperature": float("nan")}, 400, "temperature: ", None),
        ({"top_p": float("inf")}, 400, "top_p: ", None),
        ({"model": None}, 400, "model", None),
        ({"prompt": "x" * 30_000}, 413, "larger than the 20000 bytes", None),
    ],
)
def test_bad_requests(client: Client, changes: dict[str, Any], status: int, said: str, code: str | None) -> None:
    for stream in (False, True):
        reply = client.complete(**{"prompt": "hello", "stream": stream, **changes})
        assert reply.status == status
        assert said in reply.error["message"] and reply.error["code"] == code
        assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": "hydra"}', b"[" * 9_000])
def test_bodies_that_are_no_requests(client: Client, body: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        reply = client.ask("POST", path, body)
        assert reply.status == 400 and reply.error["type"] == "invalid_request_error"


def test_requests_of_the_wrong_kind(client: Client) -> None:
    assert client.ask("POST", "/v1/completions", b"{}", {"Content-Type": "text/plain"}).status == 415
    assert client.ask("GET", "/v1/completions").status == 405
    for path in ("/", "/docs", "/openapi.json", "/v1/embeddings", "/v1/../../etc/passwd"):
        missing = client.ask("GET", path)
        assert missing.status == 404 and missing.error["message"]
    chat: dict[str, Any] = {"model": "hydra", "messages": [{"role": "assistant", "content": "hello"}]}
    refused = client.ask("POST", "/v1/chat/completions", chat)
    assert refused.status == 400 and "a user speaks first" in refused.error["message"]
    for messages in ([], [{"role": "wizard", "content": "x"}], [{"role": "user"}], "hello"):
        assert client.ask("POST", "/v1/chat/completions", {**chat, "messages": messages}).status == 400
    untaught = client.ask("POST", "/v1/chat/completions", {**chat, "model": "tatar"})
    assert untaught.status == 400 and "no chat template" in untaught.error["message"]


def test_a_body_in_chunks_is_measured_too(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=SECONDS) as connection:
        lines = ["POST /v1/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        connection.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        for _ in range(3):
            connection.sendall(b"1f40\r\n" + b" " * 8000 + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_damaged_head_is_refused_without_telling_where_it_is(tmp_path: Path, client: Client) -> None:
    made = make_sample(tmp_path)
    file = made.hydra / "heads/dutch/head.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with serving(made.load()) as running:
        reply = running.client.complete("hallo", head="dutch")
        assert reply.status == 500 and reply.error["type"] == "server_error"
        assert "'dutch' cannot be used" in reply.error["message"] and str(tmp_path) not in reply.body.decode()
        assert running.client.complete(TEXTS["tatar"], head="tatar").status == 200
        assert json.loads(running.client.ask("GET", "/health").body)["status"] == "ok"
