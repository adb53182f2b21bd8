"""HTTP to the server behind an engine: kept-alive connections, and what breaks on the way as an EngineError."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from gristmill.engines.errors import EngineError, ErrorKind, crashed, interrupted, unavailable
from gristmill.http_values import shown

#: Well below the two seconds (gunicorn) or five (uvicorn, cpp-httplib) after which servers close an idle connection, so
#: that no request is sent into one that is just being closed: that looks like a crash.
_KEEP_ALIVE = 1.0
_STREAMS = frozenset({"text/event-stream", "application/x-ndjson"})
#: Bytes that a connection takes at once.
_ONE_WRITE = 65536


class Unreachable(EngineError):
    """No connection, or none that a request could be sent on: refused, name unknown, closed beforehand."""

    def __init__(self, server: str, error: Exception) -> None:
        super().__init__(ErrorKind.UNAVAILABLE, f"{server} does not answer: {_reason(error)}.", status=503)


class Reply(NamedTuple):
    """A whole answer; ``retry_after`` is the header as it came."""

    status: int
    body: bytes
    retry_after: str | None


class HttpClient:
    """Connections to one server. Make it inside a running event loop; ``close`` it.

    ``kind`` names what the server is ("Ollama") in messages.
    """

    def __init__(self, kind: str, url: str, headers: dict[str, str] | None = None) -> None:
        self._kind = kind
        self._url = url
        #: The address for messages.
        self.url = shown(url)
        # The dispatcher limits what is in flight and for how long; closing the connection cancels on the server.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0),
            headers={"Content-Type": "application/json", **(headers or {})},
        )

    async def close(self) -> None:
        await self._session.close()

    async def fetch(self, path: str, data: bytes | None = None, timeout: float | None = None) -> Reply:
        """A question that is no request of a row, so that it may be asked again: GET without ``data``, else POST.

        With ``timeout`` (seconds) a late answer is UNAVAILABLE; so is a connection that breaks twice.
        """
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout or 30.0, 30.0))
        try:
            try:
                return await self._fetch(path, data, limit)
            except EngineError as error:
                if error.crashed is None:
                    raise
                return await self._fetch(path, data, limit)
        except EngineError as error:
            raise error if error.crashed is None else unavailable(error.message) from None
        except TimeoutError:
            message = f"{self._kind} at {self.url} did not answer {path} within {timeout or 30.0:g} seconds."
            raise unavailable(message) from None

    async def _fetch(self, path: str, data: bytes | None, limit: aiohttp.ClientTimeout) -> Reply:
        async with self.exchange(path, data, limit) as response:
            return Reply(response.status, await response.read(), response.headers.get("Retry-After"))

    @asynccontextmanager
    async def exchange(
        self, path: str, data: bytes | None, timeout: aiohttp.ClientTimeout | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer with its body still to be read; failures while it is read are translated too.

        What breaks before the request was sent is UNAVAILABLE, what breaks afterwards a crash. A request that was sent
        is not sent again here: it may be what the server broke off for. Cancelling closes the connection, which frees
        what the request holds on the server.
        """
        server = f"{self._kind} at {self.url}"
        try:
            async with await self._sent(path, data, timeout or self._session.timeout) as response:
                yield response
                if response.content_type in _STREAMS:
                    # llama.cpp's server closes the connection after a stream: not to be used again.
                    response.close()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise Unreachable(server, error) from error
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, ConnectionError) as error:
            if _nothing_was_sent(error, data):
                raise Unreachable(server, error) from error
            reason = str(error) or type(error).__name__
            message = f"The connection to {server} broke while it was answering: {reason}."
            raise crashed(self.url, message) from error
        except aiohttp.ClientError as error:
            raise interrupted(f"{self.url} does not answer the way {self._kind} does: {error!r}.") from error

    async def _sent(self, path: str, data: bytes | None, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        method = "GET" if data is None else "POST"
        url = self._url + path
        # A kept-alive connection that has been closed shows it only once the event loop has looked, and dealt with it.
        for _ in range(2):
            await asyncio.sleep(0)
        try:
            return await self._session.request(method, url, data=data, allow_redirects=False, timeout=timeout)
        except aiohttp.ClientConnectionError as error:
            if not _nothing_was_sent(error, data):
                raise
            # A kept-alive connection that the server was just closing.
            return await self._session.request(method, url, data=data, allow_redirects=False, timeout=timeout)


def _nothing_was_sent(error: Exception, data: bytes | None) -> bool:
    """Whether the connection had been closed before the first byte of the request; of a body that takes several writes
    that cannot be told."""
    closed = isinstance(error, aiohttp.ClientConnectionResetError) or isinstance(
        error.__cause__, aiohttp.ClientConnectionResetError
    )
    return closed and len(data or b"") < _ONE_WRITE


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The non-empty lines of a stream, however it is cut into chunks."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
    if rest.strip():
        yield rest


def _reason(error: Exception) -> str:
    """In the system's words, where it was the system; aiohttp's own repeat the address and the state of TLS."""
    if isinstance(error, aiohttp.ClientConnectorError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return str(error) or type(error).__name__
