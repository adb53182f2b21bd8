from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from ollama_replay import MODEL, ReplayServer

from gristmill.engines.ollama.engine import OllamaEngine, OllamaOptions


@pytest.fixture
def server() -> Iterator[ReplayServer]:
    """Ollama, replayed. Whatever it was sent must have had the names and types of a recorded request."""
    with ReplayServer() as running:
        yield running
    assert running.wrong == []


@pytest_asyncio.fixture
async def engine(server: ReplayServer) -> AsyncIterator[OllamaEngine]:
    engine = OllamaEngine(OllamaOptions(), server.url, MODEL)
    await engine.start()
    yield engine
    await engine.stop()
