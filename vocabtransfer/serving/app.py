"""The application: every registered endpoint behind one door, and how its problems are told."""

from collections.abc import Awaitable, Callable, Set
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from vocabtransfer.serving.endpoints import Answer, endpoints
from vocabtransfer.serving.engine import Engine
from vocabtransfer.serving.metrics import Metrics
from vocabtransfer.serving.protocol import ApiProblem
from vocabtransfer.serving.service import Service
from vocabtransfer.serving.visitors import Door, Visitors


def create_app(engine: Engine, name: str, *, api_key: str | None = None, visitors: Visitors | None = None) -> FastAPI:
    """Return the application for an engine whose model clients call ``name``.

    With an ``api_key`` everything but /health asks for it as a bearer token. ``visitors`` says which names of hosts and
    which pages are let in; without it those of this machine.
    """
    visitors = visitors or Visitors()
    service = Service(engine, name, api_key)
    app = FastAPI(title="vocabtransfer", docs_url=None, redoc_url=None, openapi_url=None)
    offered = endpoints()
    counted = {each.path for each in offered if "{" not in each.path}
    app.add_middleware(_Count, metrics=service.metrics, counted=counted)
    if visitors.origins:
        app.add_middleware(CORSMiddleware, allow_origins=visitors.origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Door, visitors=visitors)  # the outermost: what was added last
    app.add_exception_handler(ApiProblem, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _unexpected)
    guarded = APIRouter(dependencies=[Depends(service.check)])
    for each in offered:
        router = guarded if each.guarded else app
        router.add_api_route(each.path, partial(_answer, each.answer, service), methods=[each.method])
    app.include_router(guarded)
    return app


async def _answer(answer: Answer, service: Service, request: Request) -> Response:
    return await answer(service, request)


class _Count:
    """Counts answers by route and status; paths that hold a name, and others, are counted together."""

    def __init__(self, app: Callable[..., Awaitable[None]], metrics: Metrics, counted: Set[str]) -> None:
        self._app, self._metrics, self._counted = app, metrics, counted

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._counted else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:  # answered further out, with status 500
            self._metrics.requests.labels(route, "500").inc()
            raise


async def _problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, ApiProblem)
    return JSONResponse(problem.body, problem.status, headers=problem.headers)


async def _http_problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    said = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    message = said.get(problem.status_code, str(problem.detail))
    return JSONResponse(ApiProblem(problem.status_code, message).body, problem.status_code, headers=problem.headers)


async def _unexpected(request: Request, problem: Exception) -> Response:
    return await _problem(request, ApiProblem(500, "The server failed on this request; its log says why."))
