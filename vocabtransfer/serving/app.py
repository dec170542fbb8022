"""The routes: OpenAI's completions, chat completions and models, and what operators ask for."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from vocabtransfer.serving.engine import Engine
from vocabtransfer.serving.metrics import Metrics
from vocabtransfer.serving.protocol import ApiProblem, ChatRequest, CompletionRequest
from vocabtransfer.serving.service import Service
from vocabtransfer.serving.visitors import Door, Visitors

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
COUNTED = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics")


def create_app(engine: Engine, name: str, *, api_key: str | None = None, visitors: Visitors | None = None) -> FastAPI:
    """Return the application for an engine whose model clients call ``name``.

    With an ``api_key`` everything but /health asks for it as a bearer token. ``visitors`` says which names of hosts and
    which pages are let in; without it those of this machine.
    """
    visitors = visitors or Visitors()
    service = Service(engine, name, api_key)
    app = FastAPI(title="vocabtransfer", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Count, metrics=service.metrics)
    if visitors.origins:
        app.add_middleware(CORSMiddleware, allow_origins=visitors.origins, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Door, visitors=visitors)  # the outermost: what was added last
    app.add_exception_handler(ApiProblem, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _unexpected)
    started = int(time.time())

    @app.get("/health")
    async def health() -> Response:
        state = "failed" if not engine.alive else "stopping" if engine.draining else "ok"
        facts = {"status": state, "running": engine.running, "waiting": engine.waiting}
        return JSONResponse(facts, 200 if state == "ok" else 503)

    guarded = APIRouter(dependencies=[Depends(service.check)])

    @guarded.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": PROMETHEUS})

    @guarded.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(each, started) for each in service.asking.models]}

    @guarded.get("/v1/models/{wanted:path}")
    async def model(wanted: str) -> dict[str, Any]:
        if wanted not in (*service.asking.models, *engine.model.heads):
            raise ApiProblem(404, f"There is no model {wanted!r}; see /v1/models.", code="model_not_found")
        return _model(wanted, started)

    @guarded.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await service.answer(request, CompletionRequest)

    @guarded.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await service.answer(request, ChatRequest)

    app.include_router(guarded)
    return app


class _Count:
    """Counts answers by route and status."""

    def __init__(self, app: Callable[..., Awaitable[None]], metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in COUNTED else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:  # answered further out, with status 500
            self._metrics.requests.labels(route, "500").inc()
            raise


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "vocabtransfer"}


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
