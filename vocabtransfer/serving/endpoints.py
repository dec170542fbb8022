"""What a server answers, by path: every endpoint registers itself, and `create_app` opens all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module

from fastapi import Request, Response

from vocabtransfer.serving.service import Service

Answer = Callable[[Service, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A registered endpoint. ``guarded`` ones ask for the key and count towards the rate, where there are such."""

    path: str
    method: str
    answer: Answer
    guarded: bool


#: What is registered so far, by method and path; `endpoints` registers ours first.
ENDPOINTS: dict[tuple[str, str], Endpoint] = {}
# Modules whose import registers endpoints.
_SHIPPED = ("vocabtransfer.serving.openai", "vocabtransfer.serving.operating")


def endpoint(path: str, method: str = "GET", *, guarded: bool = True) -> Callable[[Answer], Answer]:
    """Register an async function as what answers requests for a path, such as ``/v1/models/{name:path}``.

    It is called with the `Service`, which knows the engine, the limits and the metrics, and with the request
    (``request.path_params`` holds what stands in braces). What cannot be answered raises `ApiProblem`.
    """

    def register(answer: Answer) -> Answer:
        ENDPOINTS[method, path] = Endpoint(path, method, answer, guarded)
        return answer

    return register


def endpoints() -> list[Endpoint]:
    """Return every endpoint, ours first."""
    for module in _SHIPPED:
        import_module(module)
    return list(ENDPOINTS.values())
