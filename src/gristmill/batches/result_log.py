"""Storing results in groups: one transaction, one disk sync for hundreds of rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gristmill.storage.protocol import Rows
from gristmill.storage.records import Result
from gristmill.telemetry.metrics import ROWS, TOKENS

_GROUP_ROWS = 512
_GROUP_BYTES = 4 * 1024 * 1024
#: A result waits at most this long (seconds) before it is stored, so counts are never far behind.
_GROUP_DELAY = 0.1


class ResultLog:
    """``add`` takes results, ``run`` stores them until ``finish``; adding waits while storage is behind."""

    def __init__(self, rows: Rows, batch_seq: int, owner: str) -> None:
        self._rows = rows
        self._batch_seq = batch_seq
        self._owner = owner
        self._buffer: list[Result] = []
        self._bytes = 0
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._finished = False

    async def add(self, results: Sequence[Result]) -> None:
        """``results`` are stored in one transaction."""
        await self._room.wait()
        self._buffer += results
        self._bytes += sum(len(result.payload) for result in results)
        if len(self._buffer) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._full.set()
            if len(self._buffer) >= 2 * _GROUP_ROWS or self._bytes >= 2 * _GROUP_BYTES:
                self._room.clear()
                await asyncio.sleep(0)

    def finish(self) -> None:
        """Let ``run`` store what there is and return."""
        self._finished = True
        self._full.set()

    async def run(self) -> None:
        """Raises LeaseLost or StorageError when a group cannot be stored; that group's rows will run again."""
        while self._buffer or not self._finished:
            try:
                async with asyncio.timeout(_GROUP_DELAY):
                    await self._full.wait()
            except TimeoutError:
                pass
            if not self._finished:
                self._full.clear()
            group, self._buffer, self._bytes = self._buffer, [], 0
            self._room.set()
            if group:
                await self._rows.commit(self._batch_seq, self._owner, group)
                _measure(group)


def _measure(stored: Sequence[Result]) -> None:
    succeeded = sum(result.succeeded for result in stored)
    ROWS["succeeded"].inc(succeeded)
    ROWS["failed"].inc(len(stored) - succeeded)
    TOKENS["prompt"].inc(sum(result.prompt_tokens for result in stored))
    TOKENS["cached"].inc(sum(result.cached_tokens or 0 for result in stored))
    TOKENS["completion"].inc(sum(result.completion_tokens for result in stored))
