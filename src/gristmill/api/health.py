"""``/health``, ``/ready`` and ``/metrics``: for supervisors, load balancers and scrapers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from fastapi import APIRouter, Request, Response

from gristmill.api.description import described
from gristmill.api.exchange import host, reply
from gristmill.batches.scoped_host import ScopedHost
from gristmill.telemetry import metrics
from gristmill.telemetry.batch_series import BatchSeries
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
    """What can be told is told: a scrape is most wanted when something is broken."""
    found = host(request)
    dispatcher = found.dispatcher
    metrics.ENGINE_INFO.labels(dispatcher.engine.name).set(1)
    metrics.ENGINE_UP.set(dispatcher.down_reason is None)
    metrics.IN_FLIGHT.set(dispatcher.in_flight)
    metrics.WINDOW.set(dispatcher.limit)
    batches = await _measured(found)
    # In a thread: a thousand batches take some 20 ms, and a disk may be slow to say how full it is.
    text = await asyncio.to_thread(_rendered, found.settings.storage.data, batches)
    return Response(text, media_type="text/plain; version=0.0.4")


async def _measured(found: ScopedHost) -> BatchSeries | None:
    try:
        batches = await found.measured_batches()
    except Exception:
        metrics.DATABASE_UP.set(0)
        return None
    metrics.DATABASE_UP.set(1)
    return batches


def _rendered(data: Path, batches: BatchSeries | None) -> bytes:
    try:
        disk = shutil.disk_usage(data)
    except OSError:
        metrics.DISK_FREE.set(float("nan"))
    else:
        metrics.DISK_FREE.set(disk.free)
        metrics.DISK_SIZE.set(disk.total)
    return metrics.render(batches)
