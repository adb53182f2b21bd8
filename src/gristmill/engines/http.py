"""HTTP to the server behind an engine: kept-alive connections, and what breaks on the way as an EngineError."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from gristmill.engines.protocol import EngineError, ErrorKind
from gristmill.http_values import seconds as seconds
from gristmill.http_values import shown as shown

#: Below the five seconds after which uvicorn and cpp-httplib close an idle connection, so that no request is sent
#: into one that is just being closed.
_KEEP_ALIVE = 4.0


class Unreachable(EngineError):
    """No connection, or one that broke before an answer came: refused, reset, name unknown."""

    def __init__(self, server: str, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        super().__init__(ErrorKind.UNAVAILABLE, f"{server} does not answer: {reason}.", status=503)


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
        """GET without ``data``, else POST. With ``timeout`` (seconds) a late answer is UNAVAILABLE."""
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout or 30.0, 30.0))
        try:
            async with self.exchange(path, data, limit) as response:
                return Reply(response.status, await response.read(), response.headers.get("Retry-After"))
        except TimeoutError:
            message = f"{self._kind} at {self.url} did not answer {path} within {timeout or 30.0:g} seconds."
            raise EngineError(ErrorKind.UNAVAILABLE, message, status=503) from None

    @asynccontextmanager
    async def exchange(
        self, path: str, data: bytes | None, timeout: aiohttp.ClientTimeout | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer with its body still to be read; failures while it is read are translated too.

        Cancelling closes the connection, which frees what the request holds on the server.
        """
        try:
            async with await self._sent(path, data, timeout or self._session.timeout) as response:
                yield response
        except aiohttp.ClientPayloadError as error:
            message = f"The connection to {self._kind} broke in the middle of an answer: {error}."
            raise EngineError(ErrorKind.INTERRUPTED, message, status=500) from error
        except (aiohttp.ClientConnectionError, ConnectionError, aiohttp.InvalidURL) as error:
            raise Unreachable(f"{self._kind} at {self.url}", error) from error
        except aiohttp.ClientError as error:
            message = f"{self.url} does not answer the way {self._kind} does: {error!r}."
            raise EngineError(ErrorKind.INTERRUPTED, message, status=500) from error

    async def _sent(self, path: str, data: bytes | None, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        method = "GET" if data is None else "POST"
        url = self._url + path
        try:
            return await self._session.request(method, url, data=data, allow_redirects=False, timeout=timeout)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # Most likely a kept-alive connection that the server has closed meanwhile, as llama.cpp's does after a
            # stream. Asking again is harmless: a server that is really gone refuses.
            return await self._session.request(method, url, data=data, allow_redirects=False, timeout=timeout)


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
