"""What operators ask for: whether the server is well, and its metrics."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from vocabtransfer.serving.endpoints import endpoint
from vocabtransfer.serving.service import Service

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@endpoint("/health", guarded=False)
async def health(service: Service, _request: Request) -> Response:
    """Say whether requests are taken: 200, or 503 when the engine failed or is stopping."""
    engine = service.engine
    state = "failed" if not engine.alive else "stopping" if engine.draining else "ok"
    facts = {"status": state, "running": engine.running, "waiting": engine.waiting}
    return JSONResponse(facts, 200 if state == "ok" else 503)


@endpoint("/metrics")
async def metrics(service: Service, _request: Request) -> Response:
    """Give the metrics in the format of Prometheus."""
    return Response(service.metrics.text(), headers={"Content-Type": PROMETHEUS})
