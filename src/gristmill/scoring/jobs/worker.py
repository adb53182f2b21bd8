"""A process that reads one table and scores it: the conductor, apart from the server.

A table is read with all that may be wrong with it (a few kilobytes of Parquet can ask for all memory there is), and a
rubric is a template that somebody has written: neither may take the server down, or stop its event loop.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path, PurePath

import polars as pl

from gristmill.batches.job_folder import write_whole
from gristmill.planning.token_bill import Prices
from gristmill.scoring.calibration_view import calibration_view
from gristmill.scoring.conductor import Scoring
from gristmill.scoring.jobs.job import RankForm, ScoreForm, ScoreSummary, TableFacts
from gristmill.scoring.jobs.job_store import RECEIPT, REPORT, RESULT, WANTED, WORK, result_name
from gristmill.scoring.jobs.messages import (
    Check,
    Checked,
    End,
    Finished,
    Inspect,
    Inspected,
    Refused,
    Score,
    Task,
)
from gristmill.scoring.jobs.options import options_of
from gristmill.scoring.jobs.rank_work import RankWork
from gristmill.scoring.jobs.rubric_time import rubric_time
from gristmill.scoring.jobs.server_backend import Pipes, ServerBackend
from gristmill.scoring.receipt import ReceiptFiles, write_receipt
from gristmill.scoring.report import ScoreReport, histogram_of
from gristmill.scoring.scale import parse_scale
from gristmill.scoring.table import check_target, read_table, write_table
from gristmill.user_error import UserError

_SAMPLE_ROWS, _SAMPLE_CHARS = 5, 200
_MOST_COLUMNS = 1_000
_LISTED_ERRORS = 20


def inspect(task: Inspect) -> Inspected:
    """Raises UserError."""
    table = read_table(task.path)
    if table.width > _MOST_COLUMNS:
        raise UserError(f"The table has {table.width:,} columns, {_MOST_COLUMNS:,} at most.")
    check_target(Path(RESULT), table)
    sample = [
        ["" if cell is None else str(cell)[:_SAMPLE_CHARS] for cell in row] for row in table.head(_SAMPLE_ROWS).rows()
    ]
    return Inspected(TableFacts(table.columns, table.height, sample))


def prepared(task: Score, form: ScoreForm, pipes: Pipes) -> Scoring:
    """Checked as far as that can be done before anything is asked. Raises UserError."""
    table = read_table(str(Path(task.folder) / task.file))
    backend = ServerBackend(pipes, form.model, task.labels)
    with rubric_time():
        return Scoring(table, form.rubric, parse_scale(form.scale), options_of(form), backend)


def score(task: Score, form: ScoreForm, pipes: Pipes) -> Finished:
    """Raises UserError."""
    folder, scoring = Path(task.folder), prepared(task, form, pipes)
    scored = scoring.run(folder / WORK)
    write_table(scored.table, folder / RESULT)
    wanted = None
    if scored.wanted is not None:
        write_table(scored.wanted, folder / WANTED)
        wanted = scored.wanted.height
    seen = ReceiptFiles(PurePath(task.table).name, result_name(task.table))
    write_receipt(scoring.receipt(folder / WORK, scored, seen), folder / RECEIPT)
    page = scoring.page(task.table, scored, Prices(0, 0, "USD"))
    write_whole(folder / REPORT, page.encode())
    return Finished([_summary(report) for report in scored.reports], wanted)


def _summary(report: ScoreReport) -> ScoreSummary:
    scores = [each.score for each in report.outcomes if each.score is not None]
    failed = [
        (str(report.ids[row]), each.error or "") for row, each in enumerate(report.outcomes) if each.score is None
    ]
    return ScoreSummary(
        report.name,
        len(report.outcomes),
        len(failed),
        statistics.fmean(scores) if scores else None,
        statistics.median(scores) if scores else None,
        histogram_of(scores, report.scale),
        [(name[:_SAMPLE_CHARS], error[: 5 * _SAMPLE_CHARS]) for name, error in failed[:_LISTED_ERRORS]],
        calibration_view(report.calibration) if report.calibration is not None else None,
    )


def work(pipes: Pipes) -> None:
    task: Task = pipes.hear(Task)
    try:
        pipes.say(_done(task, pipes))
    except UserError as error:
        pipes.say(Refused(_in_its_owners_words(str(error), task)))
    except MemoryError:
        pipes.say(Refused("The table does not fit into memory."))
    except pl.exceptions.PanicException:
        # A defect of the reader that a damaged file has found.
        pipes.say(Refused("The table is damaged: it cannot be read."))


def _done(task: Task, pipes: Pipes) -> Inspected | Checked | End:
    match task:
        case Inspect():
            return inspect(task)
        case Check(Score(form=RankForm() as form) as asked):
            RankWork(asked, form, pipes)
            return Checked()
        case Check(Score(form=ScoreForm() as form) as asked):
            prepared(asked, form, pipes)
            return Checked()
        case Score(form=RankForm() as form):
            return RankWork(task, form, pipes).run()
        case Score(form=ScoreForm() as form):
            return score(task, form, pipes)
    raise AssertionError("there is no other")


def _in_its_owners_words(message: str, task: Task) -> str:
    """Without the place where the server keeps the table."""
    asked = task.task if isinstance(task, Check) else task
    path = asked.path if isinstance(asked, Inspect) else str(Path(asked.folder) / asked.file)
    return message.replace(path, "The table")


def _limit_memory() -> None:
    """The system ends this process before the server; it may have half of the memory that is left."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError, ValueError):
        left = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                left = int(line.split()[1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (left // 2, left // 2))


def _end_with(parent: int, leave: Callable[[int], None] = os._exit) -> None:
    """A server that was killed has closed nothing of ours that a busy process would notice."""
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    leave(1)


def _main() -> None:
    _limit_memory()
    # What a library prints must not come between the lines.
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    work(Pipes(sys.stdin.buffer, outgoing))


if __name__ == "__main__":
    _main()
