"""``/scoring``, for the best rows of a table: by the same conductor as ``gristmill rank``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from gristmill.scoring.jobs.job import RankForm, ScoreJob
from gristmill.scoring.jobs.job_store import BEST, CERTIFICATE
from gristmill.user_error import UserError
from gristmill.web.job_request import download, job_of, jobs_of, listed_batches, result_of, to_page
from gristmill.web.page import page
from gristmill.web.rank_form import Written, missing_packages, with_budget, written_in, written_of
from gristmill.web.score_form import METHODS, first_form, read_fields
from gristmill.web.visitor import host
from gristmill.wire.batch import Batch

router = APIRouter(prefix="/scoring")


class Progress(NamedTuple):
    """Rows judged so far, and how many it will be at most."""

    judged: int
    most: int


def progress_of(job: ScoreJob, batches: Sequence[Batch]) -> Progress:
    """``batches``: the last ones of the job. Of the step that is under way, what its batches have done counts."""
    rows = job.facts.rows if job.facts is not None else 0
    budget = job.form.wish.budget if isinstance(job.form, RankForm) and not job.form.wish.or_all else None
    most = max(min(rows, budget or rows), 1)
    if job.step is None:
        return Progress(0, most)
    of_step = batches[max(job.step.since - (len(job.batches) - len(batches)), 0) :]
    done = sum(each.request_counts.completed + each.request_counts.failed for each in of_step)
    # What is off the scale is asked twice, and is one row all the same.
    return Progress(min(job.step.judged + min(done, job.step.asks), most), most)


@router.post("/{job_id}/go-on")
async def go_on(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    fields = await read_fields(request)
    job = job_of(request, job_id)
    if not job.can_go_on or not isinstance(job.form, RankForm):
        return to_page(job)
    try:
        form = with_budget(job.form, fields)
        await jobs_of(request).check(job, form)
    except UserError as error:
        return await ranking_page(request, job_of(request, job_id), str(error))
    job = job_of(request, job_id)
    if job.can_go_on:
        jobs_of(request).go_on(job, form)
    return to_page(job)


@router.get("/{job_id}/best.csv")
async def best(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    return download(result_of(request, job, BEST), "text/csv", f"{PurePath(job.table).stem}-best.csv")


@router.get("/{job_id}/certificate.json")
async def certificate(request: Request, job_id: str) -> Response:
    job = job_of(request, job_id)
    name = f"{PurePath(job.table).stem}-best.csv.certificate.json"
    return download(result_of(request, job, CERTIFICATE), "application/json", name)


def rank_form_page(
    request: Request, job: ScoreJob, problem: str = "", fields: Mapping[str, Sequence[str]] | None = None
) -> Response:
    """``fields``: as they were sent, where something is wrong with them."""
    assert job.facts is not None
    models = list(host(request).dispatcher.models)
    given = job.form
    written = written_in(fields) if fields is not None else None
    if isinstance(given, RankForm):
        written, questions = written or written_of(given), given.questions
    else:
        questions = given or first_form(job.facts, models)
        # Of a table that has no hundred rows, a tenth.
        top = str(min(100, max(job.facts.rows // 10, 1)))
        written = written or Written(top=top)
    missing = missing_packages()
    return page(
        "rank_form", status=400 if problem else 200, here="scoring", job=job, error=problem or job.error or "",
        asked=questions, written=written, models=models, methods=METHODS, facts=job.facts,
        missing="" if missing in problem else missing,
    )  # fmt: skip


async def ranking_page(request: Request, job: ScoreJob, problem: str = "") -> Response:
    batches = await listed_batches(request, job)
    return page(
        "ranking", status=400 if problem else 200, here="scoring", job=job, error=problem or job.error or "",
        batches=batches, progress=progress_of(job, batches), running=job.status == "running",
    )  # fmt: skip
