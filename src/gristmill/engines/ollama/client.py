"""HTTP to one Ollama server. What goes wrong on the way becomes an EngineError."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import aiohttp
import msgspec

from gristmill.engines.ollama.answers import Collector
from gristmill.engines.ollama.failures import failure, interrupted, unavailable
from gristmill.engines.ollama.settings import shown
from gristmill.engines.ollama.translation import Asked
from gristmill.engines.protocol import EngineError, ErrorKind

T = TypeVar("T")

_HEADERS = {"Content-Type": "application/json"}
#: Seconds for the small questions (version, models); an Ollama that loads a model still answers them at once.
_QUICK = 30.0


class Unreachable(EngineError):
    """No connection, or one that broke before an answer came: refused, reset, name unknown."""

    def __init__(self, url: str, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        super().__init__(ErrorKind.UNAVAILABLE, f"Ollama at {url} does not answer: {reason}.", status=503)


class Client:
    """Make it inside a running event loop; ``close`` it."""

    def __init__(self, url: str) -> None:
        self._url = url
        #: The address for messages.
        self.url = shown(url)
        # The dispatcher limits what is in flight and for how long; closing the connection cancels on the server.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, path: str, shape: type[T], body: msgspec.Struct | None = None, timeout: float = _QUICK) -> T:
        """A small question (GET without a body, else POST), answered within ``timeout`` seconds; or EngineError."""
        method = "GET" if body is None else "POST"
        data = None if body is None else msgspec.json.encode(body)
        try:
            with self._transport():
                limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 30.0))
                async with self._session.request(
                    method, self._url + path, data=data, headers=_HEADERS, timeout=limit, allow_redirects=False
                ) as response:
                    content = await response.read()
        except TimeoutError:
            raise unavailable(f"Ollama at {self.url} did not answer {path} within {timeout:g} seconds.") from None
        if response.status != 200:
            raise failure(response.status, content, response.headers.get("Retry-After"), None, ())
        try:
            return msgspec.json.decode(content, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise interrupted(f"{self.url}{path} does not answer the way Ollama does: {error}.") from None

    async def answer(self, asked: Asked, collector: Collector, served: tuple[str, ...]) -> None:
        """Send a request and collect its answer. Cancelling closes the connection, which frees the server's slot."""
        data = msgspec.json.encode(asked.body)
        with self._transport():
            async with self._session.post(
                self._url + asked.path, data=data, headers=_HEADERS, allow_redirects=False
            ) as response:
                if response.status != 200:
                    content = await response.read()
                    raise failure(response.status, content, response.headers.get("Retry-After"), asked, served)
                if asked.body.stream:
                    async for line in _lines(response.content.iter_any()):
                        collector.add(line)
                else:
                    collector.add(await response.read())

    @contextmanager
    def _transport(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientPayloadError as error:
            raise interrupted(f"The connection to Ollama broke in the middle of an answer: {error}.") from error
        except (aiohttp.ClientConnectionError, ConnectionError, aiohttp.InvalidURL) as error:
            raise Unreachable(self.url, error) from error
        except aiohttp.ClientError as error:
            raise interrupted(f"{self.url} does not answer the way Ollama does: {error!r}.") from error


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The non-empty lines of a stream, however it is cut into chunks."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
    if rest.strip():
        yield rest
