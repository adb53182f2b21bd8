"""``/health``, ``/ready`` and ``/metrics``: for supervisors, load balancers and scrapers."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request, Response

from gristmill.api.exchange import host, reply
from gristmill.telemetry import metrics

router = APIRouter(tags=["health"])


@router.get("/health", summary="Whether the process is alive")
async def health() -> Response:
    return reply({"status": "ok"})


@router.get("/ready", summary="Whether requests will be answered")
async def ready(request: Request) -> Response:
    """503 while the engine is away or the database cannot be read, with the reason."""
    reason = host(request).dispatcher.down_reason
    if reason is None:
        try:
            await host(request).storage.metadata.batches.page(after=None, limit=1)
        except Exception as error:
            reason = str(error)
    if reason is not None:
        return reply({"status": "unavailable", "reason": reason}, 503)
    disk = shutil.disk_usage(host(request).settings.storage.data)
    return reply({"status": "ready", "disk_free_bytes": disk.free})


@router.get("/metrics", summary="Prometheus metrics")
async def prometheus(request: Request) -> Response:
    metrics.ENGINE_UP.set(host(request).dispatcher.down_reason is None)
    metrics.IN_FLIGHT.set(host(request).dispatcher.in_flight)
    return Response(metrics.render(), media_type="text/plain; version=0.0.4")
