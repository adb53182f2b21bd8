"""Chunks on their way from a writer into obstore's own threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any


class _CutOff(Exception):
    """Ends a write in the middle."""


class Handover:
    """Chunks on their way from a writer to obstore, one at a time; the rest can be withheld at any moment."""

    def __init__(self) -> None:
        self._chunk: bytes | None = None
        self._given = asyncio.Event()
        self._taken = asyncio.Event()
        self._ended = False
        self._cut_off = False

    async def give(self, chunk: bytes, taker: asyncio.Future[Any]) -> bool:
        """Waits until the chunk is taken; False where ``taker`` has ended instead."""
        self._taken.clear()
        self._chunk = chunk
        self._given.set()
        taken = asyncio.ensure_future(self._taken.wait())
        try:
            await asyncio.wait((taken, taker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            taken.cancel()
        return not taker.done()

    def end(self) -> None:
        self._ended = True
        self._given.set()

    def cut_off(self) -> None:
        self._cut_off = True
        self._given.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            await self._given.wait()
            self._given.clear()
            if self._cut_off:
                raise _CutOff
            if self._chunk is not None:
                chunk, self._chunk = self._chunk, None
                self._taken.set()
                yield chunk
            elif self._ended:
                return


async def ended(task: asyncio.Future[Any]) -> None:
    """Waits for the end of ``task``, whatever it is and however often this is cancelled meanwhile."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


async def regrouped(chunks: AsyncIterator[bytes], group_bytes: int) -> AsyncIterator[bytes]:
    """Network chunks gathered into groups of at least ``group_bytes``, the last one smaller: each group crosses into
    obstore's runtime."""
    group: list[bytes] = []
    size = 0
    async for chunk in chunks:
        group.append(chunk)
        size += len(chunk)
        if size >= group_bytes:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)
