"""What was stored by when, and what was asked after that: read from outside, from the database and from the journal
that the replicas' engine writes."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psycopg

_LOOK_SECONDS = 0.1


class Asked(NamedTuple):
    """Of the rows by number: how often each was asked, and those that were asked when their result was stored."""

    times: Counter[int]
    though_stored: list[int]


class Ledger:
    """Of the only batch in the database at ``url``; ``journal`` gets a line for each row as a replica is asked it,
    which ends in ``row-N``. It looks all the time."""

    def __init__(self, url: str, journal: Path) -> None:
        self._url = url
        self._journal = journal
        self._connection: psycopg.Connection | None = None
        self._looking = threading.Lock()
        #: How long the journal was at the first look that found the row stored.
        self._stored: dict[int, int] = {}
        self.status = ""
        #: By the batch's own counts.
        self.counted = 0
        self.failed = 0
        self.looks = 0
        #: Looks that found other counts than results.
        self.disagreements: list[tuple[int, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> Ledger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._connection is not None:
            self._connection.close()

    def look(self) -> bool:
        """False where the database does not answer now."""
        with self._looking:
            try:
                self._look()
            except psycopg.Error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                return False
            return True

    def asked(self) -> Asked:
        times: Counter[int] = Counter()
        again: list[int] = []
        offset = 0
        for line in self._journal.read_bytes().splitlines(keepends=True):
            row = int(line.rpartition(b"row-")[2])
            times[row] += 1
            if offset >= self._stored.get(row, 1 << 60):
                again.append(row)
            offset += len(line)
        return Asked(times, again)

    def _look(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, connect_timeout=5)
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with self._connection.transaction():
            found = self._connection.execute("SELECT status, completed, failed FROM batches").fetchone()
            there = self._connection.execute("SELECT to_regclass('public_batch_1.results')").fetchone()
            rows = None
            if there is not None and there[0] is not None:
                rows = self._connection.execute("SELECT line FROM public_batch_1.results").fetchall()
        # Only now: what is asked behind this is asked after the result was stored.
        length = self._journal.stat().st_size if self._journal.exists() else 0
        if found is None:
            return
        self.looks += 1
        self.status, completed, self.failed = found
        self.counted = completed + self.failed
        for (line,) in rows or ():
            self._stored.setdefault(line - 1, length)
        if rows is not None and len(rows) != self.counted:
            self.disagreements.append((self.counted, len(rows)))

    def _keep_looking(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            with contextlib.suppress(psycopg.Error):
                self.look()
