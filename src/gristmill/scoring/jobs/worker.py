"""A process that reads one table and scores it: the conductor, apart from the server.

A table is read with all that may be wrong with it (a few kilobytes of Parquet can ask for all memory there is), and a
rubric is a template that somebody has written: neither may take the server down, or stop its event loop.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import polars as pl

from gristmill.planning.token_bill import Prices
from gristmill.scoring.backend import PassFiles
from gristmill.scoring.conductor import Scoring
from gristmill.scoring.jobs.job import ScoreSummary, TableFacts
from gristmill.scoring.jobs.job_store import REPORT, RESULT, WORK
from gristmill.scoring.jobs.messages import (
    Finished,
    FromWorker,
    Inspect,
    Inspected,
    Refused,
    RunPass,
    Score,
    Task,
    ToWorker,
)
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, Method
from gristmill.scoring.questionnaire import ScoreOptions
from gristmill.scoring.report import ScoreReport, histogram_of
from gristmill.scoring.scale import parse_scale
from gristmill.scoring.table import check_target, read_table, write_table
from gristmill.user_error import UserError

_SAMPLE_ROWS, _SAMPLE_CHARS = 5, 200
_MOST_COLUMNS = 1_000
_LISTED_ERRORS = 20
#: Of computing, to fill a rubric in and look the table's names over.
_RUBRIC_SECONDS = 30.0


class Pipes:
    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def say(self, message: FromWorker) -> None:
        self._outgoing.write(msgspec.json.encode(message) + b"\n")
        self._outgoing.flush()

    def hear(self, kind: Any) -> Any:
        line = self._incoming.readline()
        if not line:
            # The server is gone; the one that comes after it starts another process.
            os._exit(1)
        return msgspec.json.decode(line, type=kind)


class ServerBackend:
    """The server that started this process. A pass that was begun is not begun again: the server knows its batch."""

    begins_answers = False
    place = "on this server"

    def __init__(self, pipes: Pipes, model: str, labels: bool) -> None:
        self._pipes = pipes
        self.model = model
        self.labels_method: Method = LABELS if labels else TOP_LOGPROBS

    def session(self) -> AbstractContextManager[None]:
        # The server's engine is up anyway.
        return contextlib.nullcontext()

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        self._pipes.say(RunPass(str(folder), str(input_file), endpoint, shared, identity))
        answer: ToWorker = self._pipes.hear(ToWorker)
        if isinstance(answer, Refused):
            raise UserError(answer.message)
        return PassFiles(answer.batch, [Path(each) for each in answer.files])


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


def score(task: Score, pipes: Pipes) -> Finished:
    """Raises UserError."""
    folder, form = Path(task.folder), task.form
    table = read_table(str(folder / task.file))
    options = ScoreOptions(
        id_column=form.id_column,
        columns=form.columns or None,
        criteria=form.criteria,
        method=form.method,
        reason=form.reason,
        name=form.name,
    )
    backend = ServerBackend(pipes, form.model, task.labels)
    with _ended_after(_RUBRIC_SECONDS):
        scoring = Scoring(table, form.rubric, parse_scale(form.scale), options, backend)
    scored = scoring.run(folder / WORK)
    write_table(scored.table, folder / RESULT)
    page = scoring.page(task.table, scored, Prices(0, 0, "USD"))
    partial = folder / f"{REPORT}.part"
    partial.write_text(page, encoding="utf-8")
    partial.replace(folder / REPORT)
    return Finished([_summary(report) for report in scored.reports])


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """The system ends this process by SIGVTALRM if it computes for longer: a template may hold one step without end,
    which no exception could leave."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


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
    )


def work(pipes: Pipes) -> None:
    task: Task = pipes.hear(Task)
    try:
        pipes.say(inspect(task) if isinstance(task, Inspect) else score(task, pipes))
    except UserError as error:
        pipes.say(Refused(_in_its_owners_words(str(error), task)))
    except MemoryError:
        pipes.say(Refused("The table does not fit into memory."))
    except pl.exceptions.PanicException:
        # A defect of the reader that a damaged file has found.
        pipes.say(Refused("The table is damaged: it cannot be read."))


def _in_its_owners_words(message: str, task: Task) -> str:
    """Without the place where the server keeps the table."""
    path = task.path if isinstance(task, Inspect) else str(Path(task.folder) / task.file)
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
