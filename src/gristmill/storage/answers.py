"""Answers kept for later batches that ask the same, in a database file of their own.

A cache: what is missing is asked again, so nothing here is needed to finish a batch, and the file may be deleted.
Where it cannot be read or written, that is logged, and the batch goes on without it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from gristmill.storage.private import private_file, private_folder
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

T = TypeVar("T")

#: An answer that nobody has asked for again is dropped after so many seconds.
KEPT_SECONDS = 90 * 86400
_LOCK_SECONDS = 30.0
#: SQLite's oldest limit on the values of one statement is 999.
_ASKED_AT_ONCE = 500
_PAGES_AT_ONCE = 2_000

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, used_at INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS answers_used ON answers (used_at);
"""


class AnswerStore:
    """Bodies of responses by a key that names everything they depend on. Several processes may use one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of ``keys`` that are known."""
        if not keys:
            return {}
        found: dict[bytes, bytes] | None = await asyncio.to_thread(lambda: self._or_nothing(lambda: self._find(keys)))
        return found or {}

    async def add(self, answers: Sequence[tuple[bytes, bytes]]) -> None:
        """Pairs of key and body; a key that is known keeps its body."""
        if answers:
            await asyncio.to_thread(self._or_nothing, lambda: self._add(answers))

    async def prune(self) -> None:
        """Drop what has not been used for long, and give its space back."""
        await asyncio.to_thread(self._or_nothing, self._prune)

    async def rebuild(self) -> None:
        """Give all space back that is free inside, also of a file that an earlier version has made. Only while nobody
        else uses it."""
        await asyncio.to_thread(self._or_nothing, self._rebuild)

    def _or_nothing(self, work: Callable[[], T]) -> T | None:
        """A damaged or locked file, or a full disk, must not stop a batch."""
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            log.warning("kept answers cannot be used", file=str(self._path), reason=str(error))
            return None

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with closing(self._connect()) as connection:
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                part = keys[start : start + _ASKED_AT_ONCE]
                query = f"SELECT key, body FROM answers WHERE key IN ({','.join('?' * len(part))})"
                found |= dict(connection.execute(query, part))
            with connection:
                values = [(int(time.time()), key) for key in found]
                connection.executemany("UPDATE answers SET used_at = ? WHERE key = ?", values)
        return found

    def _add(self, answers: Sequence[tuple[bytes, bytes]]) -> None:
        now = int(time.time())
        with closing(self._connect()) as connection, connection:
            values = [(key, now, body) for key, body in answers]
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", values)

    def _prune(self) -> None:
        if self._path.exists():
            with closing(self._connect()) as connection, connection:
                connection.execute("DELETE FROM answers WHERE used_at < ?", [int(time.time()) - KEPT_SECONDS])
            with closing(self._connect()) as connection:
                while connection.execute("PRAGMA freelist_count").fetchone()[0]:
                    # Some at a time, so that others get their turn. Only a script runs to the end of this.
                    before = connection.execute("PRAGMA page_count").fetchone()
                    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
                    if connection.execute("PRAGMA page_count").fetchone() == before:
                        # An earlier version has made the file.
                        return

    def _rebuild(self) -> None:
        if self._path.exists():
            with closing(self._connect()) as connection:
                connection.execute("VACUUM")

    def _connect(self) -> sqlite3.Connection:
        private_folder(self._path.parent)
        private_file(self._path)
        connection = sqlite3.connect(self._path, timeout=_LOCK_SECONDS)
        # Before there is anything in it.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
        return connection
