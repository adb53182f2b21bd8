"""A wire tap: passes every byte between a client and a server on unchanged, and reads which requests went by.

So that the table can say what a client really sends, and a failure comes with the body that was sent and its answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.parse
from collections.abc import Callable

import httptools

_PIECE = 65_536
#: As much of a body as a person wants to read, in bytes.
_KEPT = 20_000


class Exchange:
    """One request and its answer, as far as they came."""

    def __init__(self, method: str, path: str) -> None:
        self.began = time.time()
        self.method, self.path = method, path
        self.status: int | None = None
        self.body, self.answer = bytearray(), bytearray()


class _Requests:
    """What httptools calls while it reads a client's bytes."""

    def __init__(self, seen: Callable[[Exchange], None]) -> None:
        self._seen = seen
        self._url = b""
        self._parser = httptools.HttpRequestParser(self)
        self.unanswered: list[Exchange] = []
        self._current: Exchange | None = None

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        path = urllib.parse.urlsplit(self._url.decode("latin-1")).path
        self._current = Exchange(self._parser.get_method().decode(), path)
        self.unanswered.append(self._current)
        self._seen(self._current)

    def on_body(self, body: bytes) -> None:
        if self._current is not None:
            self._current.body += body[: _KEPT - len(self._current.body)]


class _Answers:
    """What httptools calls while it reads a server's bytes: answers come in the order of the requests."""

    def __init__(self, requests: _Requests) -> None:
        self._requests = requests
        self._parser = httptools.HttpResponseParser(self)
        self._current: Exchange | None = None

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._requests.unanswered:
            self._current = self._requests.unanswered.pop(0)
            self._current.status = status

    def on_body(self, body: bytes) -> None:
        if self._current is not None:
            self._current.answer += body[: _KEPT - len(self._current.answer)]


class Tap:
    """Listens on a free loopback port for as long as the block runs, in a thread of its own."""

    def __init__(self, server_url: str) -> None:
        parts = urllib.parse.urlsplit(server_url)
        assert parts.hostname is not None and parts.port is not None
        self._target = parts.hostname, parts.port
        self._path = parts.path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.exchanges: list[Exchange] = []
        self.base_url = ""

    def __enter__(self) -> Tap:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._pass_on, "127.0.0.1", 0), self._loop)
        port = listening.result().sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}{self._path}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def between(self, began: float, ended: float) -> list[Exchange]:
        """The requests that were sent in this time (seconds since 1970)."""
        return [each for each in self.exchanges if began <= each.began <= ended]

    async def _hang_up(self) -> None:
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for each in connections:
            each.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _pass_on(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            to_client.close()  # so a client sees a server that is not there
            return
        requests = _Requests(self.exchanges.append)
        answers = _Answers(requests)
        await asyncio.gather(_copy(from_client, to_server, requests.feed), _copy(from_server, to_client, answers.feed))
        for writer in (to_server, to_client):
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, read: Callable[[bytes], None]) -> None:
    """Bytes from one side to the other; the end of one direction is passed on as just that."""
    legible = True
    try:
        while piece := await reader.read(_PIECE):
            if legible:
                try:
                    read(piece)
                except httptools.HttpParserError:
                    legible = False  # not HTTP/1.1: passed on all the same
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()  # a reset on one side is the end of both
