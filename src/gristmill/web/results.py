"""``/batches/ID/results`` and what lies below: the rows of a batch, while it runs and after its end."""

from __future__ import annotations

from typing import get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from gristmill.batches.results.reader import ResultsGone, ResultsReader, Wanted
from gristmill.batches.results.tally import Tally
from gristmill.storage.records import BatchRecord
from gristmill.storage.row_records import RowOutcome
from gristmill.web.label_scores import distribution, labels_of, spread_view, told_shares
from gristmill.web.page import page
from gristmill.web.row_request import told_request
from gristmill.web.visitor import dashboard, host
from gristmill.wire.errors import ApiError, invalid_value, not_found
from gristmill.wire.paths import SCORE

router = APIRouter(prefix="/batches/{batch_id}")

_PAGE_ROWS = 50
#: Of the 200 ms that a page may take.
_PAGE_SECONDS, _COUNT_SECONDS = 0.08, 0.06


@router.get("/results")
async def results(request: Request, batch_id: str) -> Response:
    batch = await host(request).batches.record(batch_id)
    wanted = _wanted(request)
    start = request.query_params.get("from") or None
    reader = ResultsReader(host(request).storage, _PAGE_SECONDS)
    found, causes, gone = None, Tally(whole=True), ""
    try:
        found = await reader.page(batch, wanted, start, _PAGE_ROWS)
        if batch.failed or batch.error_file_id is not None:
            causes = await dashboard(request).tallies.causes(reader, batch, _COUNT_SECONDS)
    except ResultsGone as error:
        gone = str(error)
    except ValueError as error:
        raise ApiError(400, f"This is no page of results: {error}.") from None
    groups = sorted(causes.causes.values(), key=lambda each: -each.count)
    return page(
        "results",
        here="batch",
        batch=batch,
        wanted=wanted,
        start=start,
        found=found,
        gone=gone,
        first=_address(wanted),
        more=_address(wanted, found.more) if found is not None and found.more else None,
        causes=[(each, _address(Wanted(outcome="failed", cause=each.cause.key))) for each in groups],
        chosen=next((each.cause for each in groups if each.cause.key == wanted.cause), None),
        counted=causes.counted,
        whole=causes.whole,
        scored=batch.endpoint == SCORE,
        told_shares=told_shares,
        labels=await _labels(reader, batch) if batch.endpoint == SCORE and found is not None else None,
    )


@router.get("/rows/{place}")
async def row(request: Request, batch_id: str, place: str) -> Response:
    batch = await host(request).batches.record(batch_id)
    reader = ResultsReader(host(request).storage)
    try:
        found = await reader.row(batch, place)
    except ResultsGone as error:
        raise not_found(str(error)) from None
    except ValueError as error:
        raise not_found(f"There is no such row: {error}.") from None
    if found is None:
        raise not_found(f"The batch has no row at '{place[:40]}'.")
    sent = await reader.request(batch, found.line) if found.line is not None else None
    told = told_request(sent, batch.defaults)
    return page(
        "row",
        here="batch",
        batch=batch,
        row=found,
        request=told,
        distributions=distribution(found, labels_of(told.body if told is not None else None, batch.defaults)),
    )


@router.get("/scores")
async def scores(request: Request, batch_id: str) -> Response:
    batch = await host(request).batches.record(batch_id)
    if batch.endpoint != SCORE:
        raise not_found("This batch asks for no scores of labels.")
    reader = ResultsReader(host(request).storage)
    try:
        tally = await dashboard(request).tallies.spread(reader, batch, _COUNT_SECONDS)
    except ResultsGone as error:
        raise not_found(str(error)) from None
    labels = await _labels(reader, batch)
    return page(
        "scores",
        here="batch",
        batch=batch,
        tally=tally,
        spread=spread_view(tally.spread, labels) if tally.spread else None,
    )


async def _labels(reader: ResultsReader, batch: BatchRecord) -> list[str] | None:
    """Of all rows, or of the first one: most often they have the same."""
    if (named := labels_of(None, batch.defaults)) is not None:
        return named
    found = await reader.page(batch, Wanted(), None, 1)
    if not found.rows or found.rows[0].view.line is None:
        return None
    told = told_request(await reader.request(batch, found.rows[0].view.line), batch.defaults)
    return labels_of(told.body if told is not None else None, batch.defaults)


def _wanted(request: Request) -> Wanted:
    """What the form asks for; empty fields ask for nothing."""
    query = request.query_params
    outcome = query.get("outcome") or None
    if outcome is not None and outcome not in get_args(RowOutcome):
        raise invalid_value("outcome", outcome, ", ".join(f"'{each}'" for each in get_args(RowOutcome)))
    name = query.get("name") or None
    return Wanted(name, query.get("match") == "prefix" and name is not None, outcome, query.get("cause") or None)  # type: ignore[arg-type]


def _address(wanted: Wanted, start: str | None = None) -> str:
    """Of a page of the same batch, relative to it."""
    given = {
        "name": wanted.custom_id,
        "match": "prefix" if wanted.prefix else None,
        "outcome": wanted.outcome,
        "cause": wanted.cause,
        "from": start,
    }
    return "results?" + urlencode({name: value for name, value in given.items() if value})
