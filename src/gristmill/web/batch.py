"""``/batches/ID``: one batch, what can be done with it, and a copy of its page to send on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from gristmill.html_page import render, told_date
from gristmill.planning.prefix_boxes import drawn
from gristmill.telemetry.throughput import Sample
from gristmill.web.batch_facts import batch_facts, most_saving
from gristmill.web.curves import Curves, FollowedCurves, columns, curves
from gristmill.web.engine_facts import engine_facts
from gristmill.web.failures import failures
from gristmill.web.headers import COPY_HEADERS, SECURITY_HEADERS
from gristmill.web.milestones import Milestones
from gristmill.web.page import page
from gristmill.web.stream import Update, event, named_event
from gristmill.web.visitor import dashboard, host, may_change, names, seen_by, throughput_of
from gristmill.wire.batch import Batch

router = APIRouter(prefix="/batches")


@router.get("/{batch_id}")
async def batch_page(request: Request, batch_id: str) -> Response:
    batch = await host(request).batches.get(batch_id)
    shown, tree = await asyncio.gather(_shown(request, batch), _tree(request, batch))
    return page("batch", here="batch", told="", links=True, **shown, **tree)


@router.get("/{batch_id}/events")
async def events(request: Request, batch_id: str) -> Response:
    await host(request).batches.get(batch_id)
    milestones, followed = Milestones(), FollowedCurves()

    async def make() -> Update:
        shown = await _shown(request, await host(request).batches.get(batch_id), followed.of)
        told = milestones.told(time.monotonic(), [shown["batch"].row], shown["engine"].trouble)
        state = event(render("web/templates/batch_live.html.jinja", told=told, links=True, **shown))
        return Update(state, named_event("samples", followed.newest) if followed.newest else b"")

    return dashboard(request).streams.open(("batch", batch_id), seen_by(request), make)


@router.get("/{batch_id}/throughput")
async def throughput(request: Request, batch_id: str) -> Response:
    """For the page's script."""
    await host(request).batches.get(batch_id)
    headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
    return Response(columns(throughput_of(request, batch_id)), headers=headers, media_type="application/json")


@router.get("/{batch_id}/copy")
async def copy(request: Request, batch_id: str) -> Response:
    """The page as one file that needs nothing else."""
    batch = await host(request).batches.get(batch_id)
    shown, tree = await asyncio.gather(_shown(request, batch), _tree(request, batch))
    values = {**shown, **tree, "links": False, "told": "", "made_at": told_date(time.time())}
    body = render("web/templates/batch_copy.html.jinja", **values)
    headers = {**COPY_HEADERS, "content-disposition": f'attachment; filename="{batch.id}.html"'}
    return Response(body, headers=headers, media_type="text/html")


@router.post("/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str) -> Response:
    return _to(await host(request).batches.cancel(batch_id))


@router.post("/{batch_id}/pause")
async def pause(request: Request, batch_id: str) -> Response:
    return _to(await host(request).batches.pause(batch_id))


@router.post("/{batch_id}/resume")
async def resume(request: Request, batch_id: str) -> Response:
    return _to(await host(request).batches.resume(batch_id))


@router.post("/{batch_id}/retry")
async def retry(request: Request, batch_id: str) -> Response:
    return _to(await host(request).batches.retry(batch_id))


def _to(batch: Batch) -> Response:
    return RedirectResponse(f"/batches/{batch.id}", 303, SECURITY_HEADERS)


async def _shown(request: Request, batch: Batch, draw: Callable[[Sequence[Sample]], Curves] = curves) -> dict[str, Any]:
    name = (await names(request, [batch]))[batch.id]
    return {
        "batch": batch_facts(batch, name),
        "may_change": may_change(request),
        "failures": await failures(request, [batch]),
        "engine": engine_facts(host(request).dispatcher),
        "curves": draw(throughput_of(request, batch.id)),
    }


async def _tree(request: Request, batch: Batch) -> dict[str, Any]:
    boxes = await host(request).storage.metadata.batches.prefix_tree(batch.id) or []
    return {"tree": drawn(boxes, batch.request_counts.total), "groups": most_saving(boxes)}
