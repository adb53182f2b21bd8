"""Looking at a batch from outside the server: its stored state, its results, and the engine's journal."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Stored(NamedTuple):
    """What a kill left in the database."""

    status: str
    indexed: int
    results: dict[int, bytes]


def read_stored(data: Path, scratch: Path) -> Stored:
    """From a copy of the database, so that looking cannot repair or disturb it."""
    scratch.mkdir(exist_ok=True)
    for name in ("gristmill.db", "gristmill.db-wal"):
        (scratch / name).unlink(missing_ok=True)
        if (data / name).exists():
            shutil.copy(data / name, scratch / name)
    with sqlite3.connect(scratch / "gristmill.db") as connection:
        (status,) = connection.execute("SELECT status FROM batches").fetchone()
        (indexed,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        results = dict(connection.execute("SELECT line, payload FROM results"))
    connection.close()
    return Stored(status, indexed, results)


class Glimpse(NamedTuple):
    """The only batch as it stands: ``counted`` rows have a result, ``owner`` names the process that works on it."""

    status: str = ""
    counted: int = 0
    owner: str = ""

    def is_run_by(self, pid: int) -> bool:
        return f":{pid}:" in self.owner


def peek(data: Path) -> Glimpse:
    """Read beside the running server, which does not notice."""
    query = "SELECT status, completed + failed, coalesce(lease_owner, '') FROM batches"
    try:
        connection = sqlite3.connect(f"file:{data / 'gristmill.db'}?mode=ro", uri=True, timeout=1)
        try:
            found = connection.execute(query).fetchone()
            return Glimpse(*found) if found else Glimpse()
        finally:
            connection.close()
    except sqlite3.Error:
        return Glimpse()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120, pause: float = 0.005) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(pause)


class Journal:
    """The simulated engine's own account of the rows it answered: one line each, ending in the row's id."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, start: int = 0) -> list[str]:
        """Ids of the rows answered since byte ``start``."""
        if not self.path.exists():
            return []
        return [line.split()[-1].decode() for line in self.path.read_bytes()[start:].split(b"\n") if line]

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0
