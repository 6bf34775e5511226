"""Whether the server lives, can answer, and how it does."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pulse_edge.serve.service import Service, service_of


async def show_health(request: Request) -> Response:
    """`GET /health`: 503 if the engine hangs, so that a supervisor starts another process."""
    service = service_of(request)
    health = health_of(service)
    return JSONResponse(health, 200 if health["healthy"] else 503)


def health_of(service: Service) -> dict[str, Any]:
    """How the engine is. Waits for nothing, so that it can be told also when all threads wait."""
    health = service.model.health()
    service.metrics.healthy.set(health.healthy)
    service.metrics.waiting.set(health.queued)
    return {
        "healthy": health.healthy,
        "reason": health.reason,
        "running_s": health.running_s,
        "queued": health.queued,
        "under_way": service.admission.under_way,
    }


async def show_ready(request: Request) -> Response:
    """`GET /ready`: 200 once the self-test has passed, and until the server stops."""
    service = service_of(request)
    outcome = service.readiness.outcome
    passed = outcome is not None and outcome["passed"]
    healthy = health_of(service)["healthy"]
    draining = service.admission.draining
    record = {
        "ready": passed and healthy and not draining,
        "healthy": healthy,
        "stopping": draining,
        "self_test": outcome,
    }
    return JSONResponse(record, 200 if record["ready"] else 503)


async def show_metrics(request: Request) -> Response:
    """`GET /metrics`: for Prometheus."""
    service = service_of(request)
    health_of(service)
    service.metrics.pages.set(len(service.pages))
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


ROUTES = (
    Route("/health", show_health, methods=["GET"]),
    Route("/ready", show_ready, methods=["GET"]),
    Route("/metrics", show_metrics, methods=["GET"]),
)
