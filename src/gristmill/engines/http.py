"""HTTP to the server behind an engine: kept-alive connections, and what breaks on the way as an EngineError."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from gristmill.engines.connections import Connections
from gristmill.engines.errors import EngineError, ErrorKind, crashed, interrupted, unavailable
from gristmill.http_values import shown

#: Seconds in which a server answers that it is there.
_PROOF = 10.0
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


class _Unsent(Unreachable):
    """The server was just closing the kept-alive connection, and got nothing."""


class HttpClient:
    """Connections to one server. Make it inside a running event loop; ``close`` it.

    ``kind`` names what the server is ("Ollama") in messages. ``alive_path`` is what a server that can work answers with
    a status below 500. ``socket``: the path of the Unix socket that the server listens at, ``url`` then a name.

    A process that dies closes its sockets one after another, the one it listens at among them. What is sent in between
    is still taken by the kernel, and breaks as if it had killed the server. So once a connection has broken, none that
    is older is used any more, and before the next request is sent the server must answer on a new one.
    """

    def __init__(
        self,
        kind: str,
        url: str,
        headers: dict[str, str] | None = None,
        alive_path: str = "/",
        socket: str | None = None,
    ) -> None:
        self._kind = kind
        self._url = url
        #: The address for messages.
        self.url = shown(url)
        self.alive_path = alive_path
        self._headers = headers or {}
        self._socket = socket
        self._connections = Connections(self._headers, proven=True, socket=socket)
        self._lost: list[Connections] = []
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for connections in (self._connections, *self._lost):
            await connections.close()

    async def fetch(self, path: str, data: bytes | None = None, timeout: float | None = None) -> Reply:
        """A question that is no request of a row, so that it may be asked again: GET without ``data``, else POST.

        With ``timeout`` (seconds) a late answer is UNAVAILABLE; so is a connection that breaks twice.
        """
        try:
            try:
                return await self._fetch(path, data, timeout)
            except EngineError as error:
                if error.crashed is None:
                    raise
                return await self._fetch(path, data, timeout)
        except EngineError as error:
            raise error if error.crashed is None else unavailable(error.message) from None

    async def _fetch(self, path: str, data: bytes | None, timeout: float | None) -> Reply:
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout or 30.0, 30.0))
        try:
            async with self._exchange(path, data, limit, self._any) as response:
                return Reply(response.status, await response.read(), response.headers.get("Retry-After"))
        except TimeoutError:
            message = f"{self._kind} at {self.url} did not answer {path} within {timeout or 30.0:g} seconds."
            raise unavailable(message) from None

    @asynccontextmanager
    async def exchange(self, path: str, data: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer with its body still to be read; failures while it is read are translated too.

        What breaks before the request was sent is UNAVAILABLE, what breaks afterwards a crash. A request that was sent
        is not sent again here: it may be what the server broke off for. Cancelling closes the connection, which frees
        what the request holds on the server.
        """
        async with self._exchange(path, data, None, self._live) as response:
            yield response

    @asynccontextmanager
    async def _exchange(
        self,
        path: str,
        data: bytes | None,
        timeout: aiohttp.ClientTimeout | None,
        choose: Callable[[], Awaitable[Connections]],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # A kept-alive connection that has been closed shows it only once the event loop has looked, and dealt with it.
        for _ in range(2):
            await asyncio.sleep(0)
        connections = await choose()
        try:
            response = await self._sent(connections, path, data, timeout)
        except _Unsent:
            connections = await choose()
            response = await self._sent(connections, path, data, timeout)
        try:
            async with response:
                yield response
                if response.content_type in _STREAMS:
                    # llama.cpp's server closes the connection after a stream: not to be used again.
                    response.close()
        except EngineError as error:
            # Such as an answer that says that what stands behind the server has crashed.
            await self._note(connections, error)
            raise
        except (aiohttp.ClientError, ConnectionError) as error:
            raise await self._note(connections, self._failure(error, data)) from error
        finally:
            await connections.leave()

    async def _sent(
        self, connections: Connections, path: str, data: bytes | None, timeout: aiohttp.ClientTimeout | None
    ) -> aiohttp.ClientResponse:
        """Whoever has the answer is to ``leave`` the connections."""
        connections.enter()
        try:
            return await connections.session.request(
                "GET" if data is None else "POST", self._url + path,
                data=data, allow_redirects=False, timeout=timeout or connections.session.timeout,
            )  # fmt: skip
        except BaseException as error:
            await connections.leave()
            if isinstance(error, aiohttp.ClientError | ConnectionError):
                raise await self._note(connections, self._failure(error, data)) from error
            raise

    def _failure(self, error: Exception, data: bytes | None) -> EngineError:
        server = f"{self._kind} at {self.url}"
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
            return Unreachable(server, error)
        if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError | ConnectionError):
            if _nothing_was_sent(error, data):
                return _Unsent(server, error)
            return crashed(self.url, f"The connection to {server} broke while it was answering: {_reason(error)}.")
        return interrupted(f"{self.url} does not answer the way {self._kind} does: {error!r}.")

    async def _note(self, connections: Connections, failure: EngineError) -> EngineError:
        """The connections it came from are lost, if it may be that the server is."""
        if isinstance(failure, Unreachable) or failure.crashed is not None:
            await self._lose(connections)
        return failure

    async def _lose(self, connections: Connections) -> None:
        if connections is self._connections and not self._closed:
            self._connections = Connections(self._headers, socket=self._socket)
            self._lost = [each for each in self._lost if not each.closed] + [connections]
            await connections.lose()

    async def _any(self) -> Connections:
        return self._connections

    async def _live(self) -> Connections:
        """Connections to a server that is there. Raises EngineError, UNAVAILABLE, if it is not."""
        while True:
            connections = self._connections
            if not connections.proven:
                async with connections.proving:
                    if not connections.proven and connections.failure is None:
                        await self._prove(connections)
            if connections.failure is not None:
                raise unavailable(connections.failure)
            if connections is self._connections:
                return connections

    async def _prove(self, connections: Connections) -> None:
        try:
            reply = await self._fetch(self.alive_path, None, _PROOF)
        except EngineError as error:
            connections.failure = error.message
        else:
            if reply.status >= 500:
                connections.failure = f"{self._kind} at {self.url} answers {self.alive_path} with {reply.status}."
        if connections.failure is None:
            connections.proven = True
        else:
            await self._lose(connections)


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
