"""``/health``, ``/ready`` and ``/metrics``: for supervisors, load balancers and scrapers."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.exchange import host, reply
from gristmill.telemetry import metrics
from gristmill.wire.health import Health, Readiness

router = APIRouter(tags=["health"])

#: Below it, uploads and results are about to fail.
MIN_FREE_BYTES = 32 * 1024 * 1024


@router.get("/health", summary="Whether the process is alive", openapi_extra=described(answer=Health))
async def health() -> Response:
    return reply(Health())


@router.get(
    "/ready",
    summary="Whether requests will be answered",
    openapi_extra=described(answer=Readiness, unavailable=Readiness),
)
async def ready(request: Request) -> Response:
    """503 with the reason while the engine is away, the database cannot be read, or the disk is full."""
    free = shutil.disk_usage(host(request).settings.storage.data).free
    reason = host(request).dispatcher.down_reason or _no_room(free) or await _database_trouble(request)
    if reason is not None:
        return reply(Readiness("unavailable", free, reason), 503)
    return reply(Readiness("ready", free))


def _no_room(free: int) -> str | None:
    if free >= MIN_FREE_BYTES:
        return None
    return f"The disk of the data folder has {free:,} bytes free, less than {MIN_FREE_BYTES:,}: free some space."


async def _database_trouble(request: Request) -> str | None:
    try:
        await host(request).storage.metadata.batches.page(after=None, limit=1)
    except Exception as error:
        return str(error)
    return None


@router.get("/metrics", summary="Prometheus metrics", openapi_extra=described(media={"text/plain": str}))
async def prometheus(request: Request) -> Response:
    metrics.ENGINE_UP.set(host(request).dispatcher.down_reason is None)
    metrics.IN_FLIGHT.set(host(request).dispatcher.in_flight)
    return Response(metrics.render(), media_type="text/plain; version=0.0.4")
