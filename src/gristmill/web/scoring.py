"""``/scoring``: a table and a rubric become scores, by the same conductor as ``gristmill score``."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from gristmill.access.caller import caller_of
from gristmill.multipart_form import read_form
from gristmill.scoring.jobs.job import JobStatus, ScoreJob
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
from gristmill.scoring.jobs.keeper import ScoringJobs
from gristmill.storage.errors import DiskFull
from gristmill.user_error import UserError
from gristmill.web.bars import bars
from gristmill.web.headers import SECURITY_HEADERS
from gristmill.web.page import page
from gristmill.web.score_form import METHODS, first_form, form_of, read_fields
from gristmill.web.visitor import host
from gristmill.wire.errors import ApiError, not_found, too_large

router = APIRouter(prefix="/scoring")

_LISTED_BATCHES = 20
#: The report is a page of its own, with its style in it: it may do nothing but be looked at.
_REPORT_HEADERS = {
    **SECURITY_HEADERS,
    "content-security-policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    ),
}


@router.get("")
async def overview(request: Request) -> Response:
    jobs = _jobs(request).store.all(caller_of(request.scope).scope)
    return page("scorings", here="scoring", jobs=jobs)


@router.get("/new")
async def table_form(request: Request) -> Response:
    return page("new_scoring", here="scoring", error="")


@router.post("/new")
async def take_table(request: Request) -> Response:
    jobs = _jobs(request)
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
    return _to(job)


@router.get("/{job_id}")
async def job_page(request: Request, job_id: str) -> Response:
    return await _page(request, _job(request, job_id), None)


@router.post("/{job_id}")
async def begin(request: Request, job_id: str) -> Response:
    job = _job(request, job_id)
    fields = await read_fields(request)
    # Read once more: the fields may have taken a while to come.
    job = _job(request, job_id)
    if job.status not in (JobStatus.DRAFT, JobStatus.FAILED) or job.facts is None:
        return _to(job)
    form, problem = form_of(fields, job.facts, list(host(request).dispatcher.models))
    if not problem:
        try:
            await _jobs(request).check(job, form)
        except UserError as error:
            problem = str(error)
        # Somebody may have started it meanwhile.
        job = _job(request, job_id)
        if job.status not in (JobStatus.DRAFT, JobStatus.FAILED):
            return _to(job)
    if problem:
        job.form = form
        return await _page(request, job, problem)
    _jobs(request).begin(job, form)
    return _to(job)


@router.post("/{job_id}/cancel")
async def cancel(request: Request, job_id: str) -> Response:
    return _to(await _jobs(request).cancel(_job(request, job_id)))


@router.post("/{job_id}/delete")
async def delete(request: Request, job_id: str) -> Response:
    await _jobs(request).remove(_job(request, job_id))
    return RedirectResponse("/scoring", 303, SECURITY_HEADERS)


@router.get("/{job_id}/scores.csv")
async def table(request: Request, job_id: str) -> Response:
    job = _job(request, job_id)
    return _download(_result(request, job, RESULT), "text/csv", result_name(job.table))


@router.get("/{job_id}/receipt.json")
async def receipt(request: Request, job_id: str) -> Response:
    job = _job(request, job_id)
    return _download(_result(request, job, RECEIPT), "application/json", receipt_name(job.table))


@router.get("/{job_id}/truth-wanted.csv")
async def truth_wanted(request: Request, job_id: str) -> Response:
    job = _job(request, job_id)
    if job.wanted is None:
        raise not_found("This scoring has no rows to find the right score of.")
    return _download(_result(request, job, WANTED), "text/csv", wanted_name(job.table))


@router.get("/{job_id}/report.html")
async def report(request: Request, job_id: str) -> Response:
    path = _result(request, _job(request, job_id), REPORT)
    headers = {**_REPORT_HEADERS, "cache-control": "no-store"}
    return FileResponse(path, headers=headers, media_type="text/html")


async def _page(request: Request, job: ScoreJob, problem: str | None) -> Response:
    error = problem or job.error or ""
    if job.status in (JobStatus.DRAFT, JobStatus.FAILED) and job.facts is not None:
        models = list(host(request).dispatcher.models)
        form = job.form or first_form(job.facts, models)
        status = 400 if problem else 200
        return page(
            "score_form", status=status, here="scoring", job=job, error=error, form=form, models=models,
            methods=METHODS, facts=job.facts,
        )  # fmt: skip
    batches = []
    for batch_id in job.batches[-_LISTED_BATCHES:]:
        # It may have been forgotten since.
        with contextlib.suppress(ApiError):
            batches.append(await host(request).batches.get(batch_id))
    drawn = [
        bars(
            f"How many rows have which {each.name}",
            [(between.partition(" ")[0], count, f"{between}: {count:,} rows") for between, count in each.histogram],
        )
        for each in job.summaries
    ]
    running = job.status is JobStatus.RUNNING
    # Scorings of an earlier version have none.
    has_receipt = (_jobs(request).store.folder(job) / RECEIPT).is_file()
    return page(
        "scoring", here="scoring", job=job, error=error, batches=batches, drawn=drawn, running=running,
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


def _download(path: Path, kind: str, name: str) -> Response:
    headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
    return FileResponse(path, headers=headers, media_type=kind, filename=name)


def _result(request: Request, job: ScoreJob, name: str) -> Path:
    path = _jobs(request).store.folder(job) / name
    if job.status is not JobStatus.COMPLETED or not path.is_file():
        raise not_found("This scoring has no result yet.")
    return path


def _job(request: Request, job_id: str) -> ScoreJob:
    """The visitor's. Raises ApiError 404."""
    job = _jobs(request).store.get(job_id, caller_of(request.scope).scope)
    if job is None:
        raise not_found(
            f"No scoring found with id '{job_id[:200]}': of several servers, only the one where it was started has it."
        )
    return job


def _jobs(request: Request) -> ScoringJobs:
    found: ScoringJobs = request.app.state.scoring_jobs
    return found


def _to(job: ScoreJob) -> Response:
    return RedirectResponse(f"/scoring/{quote(job.id)}", 303, SECURITY_HEADERS)
