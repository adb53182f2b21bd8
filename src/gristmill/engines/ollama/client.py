"""HTTP to one Ollama server. What goes wrong on the way becomes an EngineError."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from gristmill.engines.errors import interrupted
from gristmill.engines.http import HttpClient, lines
from gristmill.engines.ollama.answers import PartCollector
from gristmill.engines.ollama.failures import failure
from gristmill.engines.ollama.translation import Asked
from gristmill.engines.ollama.wire import EmbedBody

T = TypeVar("T")

#: Seconds for the small questions (version, models); an Ollama that loads a model still answers them at once.
_QUICK = 30.0


class OllamaClient:
    """Make it inside a running event loop; ``close`` it."""

    def __init__(self, url: str) -> None:
        self._http = HttpClient("Ollama", url, alive_path="/api/version")
        #: The address for messages.
        self.url = self._http.url

    async def close(self) -> None:
        await self._http.close()

    async def ask(
        self, path: str, shape: type[T], body: msgspec.Struct | None = None, timeout: float | None = _QUICK
    ) -> T:
        """A small question (GET without a body, else POST), answered within ``timeout`` seconds; or EngineError."""
        data = None if body is None else msgspec.json.encode(body)
        reply = await self._http.fetch(path, data, timeout)
        if reply.status != 200:
            raise failure(reply.status, reply.body, reply.retry_after, None, ())
        try:
            return msgspec.json.decode(reply.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise interrupted(f"{self.url}{path} does not answer the way Ollama does: {error}.") from None

    async def embed(self, body: EmbedBody, served: tuple[str, ...]) -> bytes:
        """The answer to a request of a row, undecoded. Cancelling closes the connection."""
        async with self._http.exchange("/api/embed", msgspec.json.encode(body)) as response:
            content = await response.read()
            if response.status != 200:
                retry_after = response.headers.get("Retry-After")
                raise failure(response.status, content, retry_after, None, served, body.model)
            return content

    async def answer(self, asked: Asked, collector: PartCollector, served: tuple[str, ...]) -> None:
        """Send a request and collect its answer. Cancelling closes the connection, which frees the server's slot."""
        async with self._http.exchange(asked.path, msgspec.json.encode(asked.body)) as response:
            if response.status != 200:
                content = await response.read()
                raise failure(response.status, content, response.headers.get("Retry-After"), asked, served)
            if asked.body.stream:
                async for line in lines(response.content.iter_any()):
                    collector.add(line)
            else:
                collector.add(await response.read())
