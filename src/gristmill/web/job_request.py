"""What a request about a scoring or a ranking is about, and where its answers come from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from gristmill.access.caller import caller_of
from gristmill.scoring.jobs.job import JobStatus, ScoreJob
from gristmill.scoring.jobs.keeper import ScoringJobs
from gristmill.web.headers import SECURITY_HEADERS
from gristmill.web.visitor import host
from gristmill.wire.batch import Batch
from gristmill.wire.errors import ApiError, not_found

_LISTED_BATCHES = 20


def jobs_of(request: Request) -> ScoringJobs:
    found: ScoringJobs = request.app.state.scoring_jobs
    return found


def job_of(request: Request, job_id: str) -> ScoreJob:
    """The visitor's. Raises ApiError 404."""
    job = jobs_of(request).store.get(job_id, caller_of(request.scope).scope)
    if job is None:
        raise not_found(
            f"No scoring found with id '{job_id[:200]}': of several servers, only the one where it was started has it."
        )
    return job


def result_of(request: Request, job: ScoreJob, name: str) -> Path:
    """Raises ApiError 404."""
    path = jobs_of(request).store.folder(job) / name
    if job.status is not JobStatus.COMPLETED or not path.is_file():
        raise not_found("This scoring has no result yet.")
    return path


def download(path: Path, kind: str, name: str) -> Response:
    headers = {**SECURITY_HEADERS, "cache-control": "no-store"}
    return FileResponse(path, headers=headers, media_type=kind, filename=name)


async def listed_batches(request: Request, job: ScoreJob) -> list[Batch]:
    """The last ones of the job."""
    batches = []
    for batch_id in job.batches[-_LISTED_BATCHES:]:
        # It may have been forgotten since.
        with contextlib.suppress(ApiError):
            batches.append(await host(request).batches.get(batch_id))
    return batches


def to_page(job: ScoreJob) -> Response:
    return RedirectResponse(f"/scoring/{quote(job.id)}", 303, SECURITY_HEADERS)
