"""``/``: all batches, the engine and the disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from gristmill.html_page import render
from gristmill.telemetry.throughput import Sample
from gristmill.web.batch_row import batch_row, reused
from gristmill.web.curves import Curves, FollowedCurves, columns, curves
from gristmill.web.engine_facts import engine_facts
from gristmill.web.failures import failures
from gristmill.web.headers import SECURITY_HEADERS
from gristmill.web.milestones import Milestones
from gristmill.web.page import page
from gristmill.web.stream import Update, event, named_event
from gristmill.web.visitor import dashboard, host, names, seen_by, throughput

router = APIRouter()

#: Batches under way on one page, and such as have ended.
_UNDER_WAY, _ENDED = 100, 20


@router.get("/")
async def overview(request: Request) -> Response:
    shown = await _shown(request, request.query_params.get("after"))
    return page("overview", here="overview", told="", links=True, **shown)


@router.get("/events")
async def events(request: Request) -> Response:
    milestones, followed = Milestones(), FollowedCurves()

    async def make() -> Update:
        shown = await _shown(request, None, followed.of)
        rows = [*shown["unfinished"], *shown["ended"]]
        told = milestones.told(time.monotonic(), rows, shown["engine"].trouble)
        state = event(render("web/templates/overview_live.html.jinja", told=told, links=True, **shown))
        return Update(state, named_event("samples", followed.newest) if followed.newest else b"")

    return dashboard(request).streams.open("overview", seen_by(request), make)


@router.get("/throughput")
async def all_throughput(request: Request) -> Response:
    """For the page's script."""
    headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
    batches = host(request).batches
    seen = [
        *(await batches.page(None, _UNDER_WAY, ended=False)).data,
        *(await batches.page(None, _ENDED, ended=True)).data,
    ]
    return Response(columns(throughput(request, seen)), headers=headers, media_type="application/json")


async def _shown(
    request: Request, after: str | None, draw: Callable[[Sequence[Sample]], Curves] = curves
) -> dict[str, Any]:
    batches = host(request).batches
    unfinished, ended, disk = await asyncio.gather(
        batches.page(None, _UNDER_WAY, ended=False),
        batches.page(after, _ENDED, ended=True),
        dashboard(request).disk.facts(),
    )
    called = await names(request, [*unfinished.data, *ended.data])
    return {
        "unfinished": [batch_row(batch, called[batch.id]) for batch in unfinished.data],
        "more_unfinished": unfinished.has_more,
        "ended": [batch_row(batch, called[batch.id]) for batch in ended.data],
        "after": after,
        "more": ended.last_id if ended.has_more else None,
        "reused": reused(unfinished.data),
        "engine": engine_facts(host(request).dispatcher),
        "disk": disk,
        "failures": await failures(request, [*unfinished.data, *ended.data]),
        "curves": draw(throughput(request, [*unfinished.data, *ended.data])),
    }
