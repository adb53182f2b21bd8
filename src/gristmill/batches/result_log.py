"""Storing results in groups: one transaction, one disk sync for hundreds of rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from gristmill.storage.protocol import Rows
from gristmill.storage.records import Lease
from gristmill.storage.row_records import Result
from gristmill.telemetry.metrics import COMMIT_SECONDS, REPREFILLED_ROWS, ROWS, TOKENS

_GROUP_ROWS = 512
_GROUP_BYTES = 4 * 1024 * 1024
#: A result waits at most this long (seconds) before it is stored, so counts are never far behind.
_GROUP_DELAY = 0.1
#: A plan that expects less of the cache than this share of the prompt tokens is too uncertain to hold rows against.
_LEAST_PLANNED_REUSE = 0.2


class ResultLog:
    """``add`` takes results, ``run`` stores them until ``finish``; adding waits while storage is behind.

    ``planned_reuse`` is the share of the prompt tokens that the batch's plan expects from the engine's cache;
    ``quiet_since`` (Unix time) is when an earlier attempt to run the rows last stored any.
    """

    def __init__(
        self,
        rows: Rows,
        lease: Lease,
        planned_reuse: float | None = None,
        quiet_since: float | None = None,
    ) -> None:
        self._rows = rows
        self._lease = lease
        self._planned_reuse = planned_reuse or 0.0
        #: When results were last stored, or this began: Unix time.
        self.stored_at = quiet_since or time.time()
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
                began = time.perf_counter()
                await self._rows.commit(self._lease, group)
                COMMIT_SECONDS.observe(time.perf_counter() - began)
                self.stored_at = time.time()
                _measure(group, self._planned_reuse)


def _measure(stored: Sequence[Result], planned_reuse: float) -> None:
    succeeded = sum(result.succeeded for result in stored)
    ROWS["succeeded"].inc(succeeded)
    ROWS["failed"].inc(len(stored) - succeeded)
    TOKENS["prompt"].inc(sum(result.prompt_tokens for result in stored))
    told = [(result.cached_tokens, result.prompt_tokens) for result in stored if result.cached_tokens is not None]
    cached = sum(tokens for tokens, _ in told)
    TOKENS["cached"].inc(cached)
    TOKENS["computed"].inc(sum(tokens for _, tokens in told) - cached)
    TOKENS["completion"].inc(sum(result.completion_tokens for result in stored))
    if planned_reuse >= _LEAST_PLANNED_REUSE:
        REPREFILLED_ROWS.inc(sum(cached < planned_reuse / 2 * prompt for cached, prompt in told))
