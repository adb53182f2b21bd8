"""``/scoring``: a table and a rubric become scores, by the same conductor as ``gristmill score``."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from gristmill.access.caller import caller_of
from gristmill.multipart_form import read_form
from gristmill.scoring.jobs.job import JobStatus, RankForm, ScoreForm, ScoreJob
from gristmill.scoring.jobs.job_store import (
    MAX_TABLE_BYTES,
    RECEIPT,
    REPORT,
    RESULT,
    WANTED,
    receipt_name,
    result_name,
    wanted_name,
)
from gristmill.storage.errors import DiskFull
from gristmill.user_error import UserError
from gristmill.web.bars import bars
from gristmill.web.headers import SECURITY_HEADERS
from gristmill.web.job_request import download, job_of, jobs_of, listed_batches, result_of, to_page
from gristmill.web.page import page
from gristmill.web.rank_form import rank_form_of
from gristmill.web.ranking import rank_form_page, ranking_page
from gristmill.web.score_form import METHODS, first_form, form_of, read_fields
from gristmill.web.visitor import host
from gristmill.wire.errors import not_found, too_large

router = APIRouter(prefix="/scoring")

_CAN_BEGIN = (JobStatus.DRAFT, JobStatus.PLANNED, JobStatus.FAILED)
#: The report is a page of its own, with its style in it: it may do nothing but be looked at.
_REPORT_HEADERS = {
    **SECURITY_HEADERS,
    "content-security-policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    ),
}


@router.get("")
async def overview(request: Request) -> Response:
    jobs = jobs_of(request).store.all(caller_of(request.scope).scope)
    return page("scorings", here="scoring", jobs=jobs)


@router.get("/new")
async def table_form(request: Request) -> Response:
    return page("new_scoring", here="scoring", error="")


@router.post("/new")
async def take_table(request: Request) -> Response:
    jobs = jobs_of(request)
    job = jobs.store.new(caller_of(request.scope).scope, int(time.time()))
    kept = False
    try:
        path = jobs.store.folder(job) / job.file
        room = jobs.store.room(job.scope)
        sent = await read_form(request, "table", lambda chunks: _write(path, chunks, room))
        jobs.store.name(job, sent.filename)
        job.facts = await jobs.inspect(job)
        # Again, and kept with nothing between: others may have come at the same time.
        _check_room(sent.file, jobs.store.room(job.scope))
        jobs.store.save(job)
        kept = True
    except UserError as error:
        return page("new_scoring", status=400, here="scoring", error=str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("The disk that holds the data folder is full: free some space.") from None
        raise
    finally:
        if not kept:
            jobs.store.remove(job)
    return to_page(job)


@router.get("/{job_id}")
async def job_page(request: Request, job_id: str, want: str = "") -> Response:
    """``want``: which form, where one can still be chosen."""
    job = job_of(request, job_id)
    if want and job.status in _CAN_BEGIN and job.facts is not None:
        return rank_form_page(request, job) if want == "best" else _form_page(request, job)
    return await _page(request, job)


@router.post("/{job_id}")
async def begin(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    fields = await read_fields(request)
    # Read once more: the fields may have taken a while to come.
    job = job_of(request, job_id)
    if job.status not in _CAN_BEGIN or job.facts is None:
        return to_page(job)
    models = list(host(request).dispatcher.models)
    ranks = fields.get("want") == ["best"]
    form: ScoreForm | RankForm | None
    if ranks:
        asked, form, problem = rank_form_of(fields, job.facts, models)
    else:
        asked, problem = form_of(fields, job.facts, models)
        form = asked
    if form is not None and not problem:
        try:
            await jobs_of(request).check(job, form)
        except UserError as error:
            problem = str(error)
        # Somebody may have started it meanwhile.
        job = job_of(request, job_id)
        if job.status not in _CAN_BEGIN:
            return to_page(job)
    if problem or form is None:
        job.form = asked
        return rank_form_page(request, job, problem, fields) if ranks else _form_page(request, job, problem)
    jobs_of(request).begin(job, form)
    return to_page(job)


@router.post("/{job_id}/cancel")
async def cancel(request: Request, job_id: str) -> Response:
    return to_page(await jobs_of(request).cancel(job_of(request, job_id)))


@router.post("/{job_id}/delete")
async def delete(request: Request, job_id: str) -> Response:
    await jobs_of(request).remove(job_of(request, job_id))
    return RedirectResponse("/scoring", 303, SECURITY_HEADERS)


@router.get("/{job_id}/scores.csv")
async def table(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    return download(result_of(request, job, RESULT), "text/csv", result_name(job.table))


@router.get("/{job_id}/receipt.json")
async def receipt(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    return download(result_of(request, job, RECEIPT), "application/json", receipt_name(job.table))


@router.get("/{job_id}/truth-wanted.csv")
async def truth_wanted(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    if job.wanted is None:
        raise not_found("This scoring has no rows to find the right score of.")
    return download(result_of(request, job, WANTED), "text/csv", wanted_name(job.table))


@router.get("/{job_id}/report.html")
async def report(request: Request, job_id: str) -> Response:
    path = result_of(request, job_of(request, job_id), REPORT)
    headers = {**_REPORT_HEADERS, "cache-control": "no-store"}
    return FileResponse(path, headers=headers, media_type="text/html")


def _form_page(request: Request, job: ScoreJob, problem: str = "") -> Response:
    assert job.facts is not None
    models = list(host(request).dispatcher.models)
    given = job.form.questions if isinstance(job.form, RankForm) else job.form
    return page(
        "score_form", status=400 if problem else 200, here="scoring", job=job, error=problem or job.error or "",
        form=given or first_form(job.facts, models), models=models, methods=METHODS, facts=job.facts,
    )  # fmt: skip


async def _page(request: Request, job: ScoreJob) -> Response:
    ranks = isinstance(job.form, RankForm)
    if job.status in (JobStatus.DRAFT, JobStatus.FAILED) and job.facts is not None:
        return rank_form_page(request, job) if ranks else _form_page(request, job)
    if ranks:
        return await ranking_page(request, job)
    batches = await listed_batches(request, job)
    drawn = [
        bars(
            f"How many rows have which {each.name}",
            [(between.partition(" ")[0], count, f"{between}: {count:,} rows") for between, count in each.histogram],
        )
        for each in job.summaries
    ]
    running = job.status is JobStatus.RUNNING
    # Scorings of an earlier version have none.
    has_receipt = (jobs_of(request).store.folder(job) / RECEIPT).is_file()
    return page(
        "scoring", here="scoring", job=job, error=job.error or "", batches=batches, drawn=drawn, running=running,
        has_receipt=has_receipt,
    )  # fmt: skip


async def _write(path: Path, chunks: AsyncIterator[bytes], room: int) -> int:
    """Raises ApiError 413, also where the owner's key has no more ``room``, in bytes."""
    size = 0
    with path.open("wb", 1024 * 1024) as file:
        async for chunk in chunks:
            size += len(chunk)
            if size > MAX_TABLE_BYTES:
                message = f"The table is too large: {MAX_TABLE_BYTES:,} bytes at most. Score it in parts."
                raise too_large(message, param="table", code="file_too_large")
            _check_room(size, room)
            file.write(chunk)
    return size


def _check_room(size: int, room: int) -> None:
    """Raises ApiError 413."""
    if size > room:
        message = f"Your key has room for {room:,} bytes of tables: delete scorings that you do not need."
        raise too_large(message, param="table", code="file_too_large")
