"""What a request that Ollama does not answer waits for: a model that is not loaded, and what Ollama holds instead.

Ollama queues a request until its model has room. While other models are held for ever that is never, and nothing is
said about it: only the list of loaded models tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gristmill.engines.errors import EngineError
from gristmill.engines.ollama.client import OllamaClient
from gristmill.engines.ollama.facts import full_name, stays_forever
from gristmill.engines.ollama.wire import RunningModel, RunningModels

#: Seconds without an answer after which the loaded models are looked at, and seconds between looks.
_PATIENCE = 10.0
_LOOK_SECONDS = 2.0
#: Seconds without a request after which what was waited for is another matter.
_FORGET_SECONDS = 60.0


class LoadWatch:
    """``async with watch.request()`` around each request; ``waiting_for`` says meanwhile what they wait for, if that is
    a load."""

    def __init__(
        self, client: OllamaClient, model: str, patience: float = _PATIENCE, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._client = client
        self._model = model
        self._patience = patience
        self._look_seconds = look_seconds
        self._in_flight = 0
        self._quiet_since = 0.0
        self._left = 0.0
        self._looking: asyncio.Task[None] | None = None
        self.waiting_for: str | None = None

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        if self._in_flight == 0:
            # A request given up for its time-out is soon followed by the next, which waits for the same.
            if self.waiting_for is None or time.monotonic() - self._left > _FORGET_SECONDS:
                self._quiet_since, self.waiting_for = time.monotonic(), None
            self._looking = asyncio.create_task(self._look())
        self._in_flight += 1
        try:
            yield
            self._quiet_since = time.monotonic()
            self.waiting_for = None
        finally:
            self._in_flight -= 1
            if self._in_flight == 0 and self._looking is not None:
                self._looking.cancel()
                self._left = time.monotonic()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            if time.monotonic() - self._quiet_since < self._patience:
                continue
            # One that does not answer even this is somebody else's to report.
            with contextlib.suppress(EngineError):
                running = (await self._client.ask("/api/ps", RunningModels)).models
                self.waiting_for = waiting_for(self._model, running, time.monotonic() - self._quiet_since)


def waiting_for(model: str, running: list[RunningModel], seconds: float) -> str | None:
    """In words; None where the model is loaded, so that Ollama is only slow. Pure."""
    if any(full_name(each.name) == full_name(model) for each in running):
        return None
    return f"Ollama to load {model}, for {seconds:.0f} seconds now{held(running)}"


def held(running: list[RunningModel]) -> str:
    """What Ollama holds, to stand behind a sentence. Pure."""
    if not running:
        return ""
    names = (f"{each.name} {'for ever' if stays_forever(each) else 'for now'}" for each in running)
    return f"; it holds {', '.join(names)} (`ollama stop NAME` lets a model go)"
