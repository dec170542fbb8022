"""OpenAI's interface: completions, chat completions and models."""

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from vocabtransfer.serving.endpoints import endpoint
from vocabtransfer.serving.protocol import ApiProblem, ChatRequest, CompletionRequest
from vocabtransfer.serving.service import Service


@endpoint("/v1/models")
async def models(service: Service, _request: Request) -> Response:
    """List what may stand as ``model`` in a request."""
    return JSONResponse({"object": "list", "data": [_model(each, service.started) for each in service.asking.models]})


@endpoint("/v1/models/{wanted:path}")
async def model(service: Service, request: Request) -> Response:
    """Describe one model; heads by their bare names, too."""
    wanted = request.path_params["wanted"]
    if wanted not in (*service.asking.models, *service.engine.model.heads):
        raise ApiProblem(404, f"There is no model {wanted!r}; see /v1/models.", code="model_not_found")
    return JSONResponse(_model(wanted, service.started))


@endpoint("/v1/completions", "POST")
async def completions(service: Service, request: Request) -> Response:
    """Go on with a text."""
    return await service.answer(request, CompletionRequest)


@endpoint("/v1/chat/completions", "POST")
async def chat(service: Service, request: Request) -> Response:
    """Answer a conversation."""
    return await service.answer(request, ChatRequest)


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "vocabtransfer"}
