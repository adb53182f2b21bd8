"""Event streams: what a page shows is made at most once a second, while somebody looks, once for all who see the same.

Nobody is waited for. Each viewer is sent the newest update there is when the one before has left; who does not take one
in time is dropped, and a browser comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple

from fastapi import Response
from starlette.types import Receive, Scope, Send

from gristmill.telemetry.log import get_logger
from gristmill.web.headers import SECURITY_HEADERS
from gristmill.wire.errors import ApiError

log = get_logger(__name__)

EVERY_SECONDS = 1.0
#: Without anything new, a comment is sent after so long: it finds out who has gone away without a word.
QUIET_SECONDS = 15.0
#: For the bytes of one update to be taken.
SLOW_SECONDS = 10.0
#: Open at the same time for those who see the same: each holds one of the server's connections, and makes a page that
#: nobody else looks at every second.
MAX_STREAMS = 64


class Update(NamedTuple):
    """``state`` is sent where it differs from the last one, ``extra`` besides with each that is sent."""

    state: bytes
    extra: bytes = b""


#: Makes the next update of a page.
Make = Callable[[], Awaitable[Update]]


class _Feed:
    """One page for those who see the same of it; updates, and states among them, are numbered."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.viewers = 0
        self.number = self.state_number = 0
        self.newest = Update(b"")
        self.changed = asyncio.Condition()
        #: What it shows has been deleted: there is nothing more to send.
        self.gone = False
        self.task: asyncio.Task[None] | None = None

    def publish(self, update: Update) -> bool:
        """Whether there is anything new in it."""
        new_state = update.state != self.newest.state
        if not new_state and not update.extra:
            return False
        self.number += 1
        self.state_number += new_state
        self.newest = update
        return True

    def since(self, state_number: int) -> bytes:
        return (self.newest.state if self.state_number > state_number else b"") + self.newest.extra


class Streams:
    """All streams of a server. ``close`` ends them at once, and those that are asked for later."""

    def __init__(self, every: float = EVERY_SECONDS) -> None:
        self._every = every
        self._feeds: dict[Hashable, _Feed] = {}
        self._closing = asyncio.Event()
        #: By whom they are for.
        self.open_now: Counter[Hashable] = Counter()

    def open(self, shown: Hashable, whose: Hashable, make: Make) -> Response:
        """``shown``: which page, ``whose``: for whom; those with equal ones share what ``make`` makes. Raises ApiError
        429."""
        if self.open_now[whose] >= MAX_STREAMS:
            message = f"You have {MAX_STREAMS} pages of this server open, which are brought up to date: close some."
            raise ApiError(429, message, type="rate_limit_error", code="rate_limit_exceeded", retry_after=5)
        return _Stream(self, shown, whose, make)

    def close(self) -> None:
        self._closing.set()

    async def closed(self) -> None:
        """Until ``close``."""
        await self._closing.wait()

    @property
    def viewers(self) -> int:
        return sum(feed.viewers for feed in self._feeds.values())

    async def view(self, seen: Hashable, make: Make, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send updates until ``send`` fails, or what is shown has been deleted. Raises TimeoutError where it takes too
        long."""
        feed = self._feeds.setdefault(seen, _Feed(make))
        feed.viewers += 1
        if feed.task is None:
            feed.task = asyncio.create_task(self._produce(feed))
        sent = state_sent = 0
        try:
            while not feed.gone:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_SECONDS), feed.changed:
                        await feed.changed.wait_for(lambda: feed.gone or feed.number > sent)  # noqa: B023 - called at once
                data = b": nothing new\n\n" if feed.number == sent else feed.since(state_sent)
                sent, state_sent = feed.number, feed.state_number
                async with asyncio.timeout(SLOW_SECONDS):
                    await send(data)
        finally:
            feed.viewers -= 1
            if not feed.viewers:
                feed.task.cancel()
                del self._feeds[seen]

    async def _produce(self, feed: _Feed) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                update = await feed.make()
            except ApiError as error:
                if error.status == 404:
                    feed.gone = True
                    async with feed.changed:
                        feed.changed.notify_all()
                    return
                log.warning("a page cannot be brought up to date", code=error.body.code, content=error.body.message)
            except Exception as error:
                # The page stays as it is, and is made again.
                log.warning("a page cannot be brought up to date", exc_info=error)
            else:
                if feed.publish(update):
                    async with feed.changed:
                        feed.changed.notify_all()
            await asyncio.sleep(max(self._every - (clock() - began), self._every / 10))


class _Stream(Response):
    media_type = "text/event-stream"

    def __init__(self, streams: Streams, shown: Hashable, whose: Hashable, make: Make) -> None:
        super().__init__(headers={**SECURITY_HEADERS, "cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._streams, self._shown, self._whose, self._make = streams, shown, whose, make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.open_now[self._whose] += 1
        try:
            await self._send(scope, receive, send)
        finally:
            self._streams.open_now[self._whose] -= 1

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def send_data(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        viewing = asyncio.create_task(self._streams.view((self._shown, self._whose), self._make, send_data))
        tasks = [viewing, asyncio.create_task(_left(receive)), asyncio.create_task(self._streams.closed())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended, *_ = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(ended, TimeoutError):
            log.info("a reader of a page was too slow", path=scope["path"])
            # Without its end the connection is closed, with what still waits to be sent.
            return
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(html: str) -> bytes:
    """What the page's element is to hold from now on."""
    # A carriage return would end a line of the event.
    lines = html.replace("\r", "&#13;").encode("utf-8", "replace").split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


def named_event(name: str, data: bytes) -> bytes:
    """For the page's script; ``data`` is one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
