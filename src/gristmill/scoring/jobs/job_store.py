"""The folders of scorings. What is in one is whole at any moment, so that a kill loses nothing."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from pathlib import Path, PurePath

import msgspec

from gristmill.batches.job_folder import write_whole
from gristmill.scoring.jobs.job import JobStatus, ScoreJob
from gristmill.storage.private import private_folder
from gristmill.storage.scope import Scope
from gristmill.user_error import UserError

#: Of a table; what it takes in memory is several times that.
MAX_TABLE_BYTES = 1024**3
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
RESULT, REPORT, RECEIPT, WANTED, WORK = "scores.csv", "report.html", "receipt.json", "truth-wanted.csv", "work"
#: Of a ranking.
BEST, CERTIFICATE = "best.csv", "certificate.json"
#: Seconds after which a table that nobody scored goes.
_DRAFT_LIFETIME = 86_400
_NOTE = "job.json"
_ID = re.compile(r"scoring_[0-9a-f]{32}")


class JobStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, scope: Scope, now: int) -> ScoreJob:
        """With a folder, in which its ``file`` can be written; it is not kept before ``save``."""
        job = ScoreJob(f"scoring_{secrets.token_hex(16)}", now, scope, "", "incoming")
        private_folder(self._folder)
        private_folder(self.folder(job))
        return job

    def name(self, job: ScoreJob, table: str) -> None:
        """Call its file as its format wants it. Raises UserError for what is no table's name."""
        suffix = Path(table).suffix.lower()
        if suffix not in TABLE_SUFFIXES:
            allowed = ", ".join(TABLE_SUFFIXES)
            raise UserError(f"'{table[:200]}' is no table this can read: choose a file that ends in {allowed}.")
        file = f"table{suffix}"
        (self.folder(job) / job.file).replace(self.folder(job) / file)
        job.table, job.file = table, file

    def folder(self, job: ScoreJob) -> Path:
        return self._folder / job.id

    def save(self, job: ScoreJob) -> None:
        write_whole(self.folder(job) / _NOTE, msgspec.json.encode(job))

    def get(self, job_id: str, scope: Scope) -> ScoreJob | None:
        """None for an unknown one, and for another's."""
        if _ID.fullmatch(job_id) is None:
            return None
        job = self._read(self._folder / job_id)
        return job if job is not None and scope.has(job.scope.key_id) else None

    def all(self, scope: Scope) -> list[ScoreJob]:
        """Newest first."""
        if not self._folder.is_dir():
            return []
        found = (self._read(each) for each in self._folder.iterdir() if _ID.fullmatch(each.name))
        mine = [job for job in found if job is not None and scope.has(job.scope.key_id)]
        return sorted(mine, key=lambda job: (job.created_at, job.id), reverse=True)

    def room(self, scope: Scope) -> int:
        """For another table, in bytes: as for its files, a key has a limit for all tables and scores together."""
        if scope.limits.bytes is None:
            return MAX_TABLE_BYTES
        kept = sum(_size(path) for job in self.all(scope) for path in self.folder(job).rglob("*"))
        return max(scope.limits.bytes - kept, 0)

    def remove(self, job: ScoreJob) -> None:
        shutil.rmtree(self.folder(job), ignore_errors=True)

    def tidy(self) -> None:
        """Remove what was never begun, and what a kill has left of an upload. Only while nothing is uploaded."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            job = self._read(folder)
            if job is None or (job.status is JobStatus.DRAFT and job.created_at < time.time() - _DRAFT_LIFETIME):
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, folder: Path) -> ScoreJob | None:
        try:
            job = _read_note((folder / _NOTE).read_bytes())
        except (OSError, msgspec.DecodeError):
            return None
        # It may come from a backup, and that from anywhere.
        return job if job.id == folder.name and job.file == Path(job.file).name else None


def result_name(table: str) -> str:
    """What the scores of the table are called where they are downloaded."""
    return f"{PurePath(table).stem}-scores.csv"


def receipt_name(table: str) -> str:
    return f"{result_name(table)}.receipt.json"


def wanted_name(table: str) -> str:
    """As the command calls it."""
    return f"{PurePath(result_name(table)).stem}-truth-wanted.csv"


def _read_note(data: bytes) -> ScoreJob:
    """Raises DecodeError."""
    note = msgspec.json.decode(data)
    form = note.get("form") if isinstance(note, dict) else None
    if isinstance(form, dict):
        # Earlier versions could only score.
        form.setdefault("type", "score")
    return msgspec.convert(note, ScoreJob)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # A scoring that has just ended has tidied up.
        return 0
