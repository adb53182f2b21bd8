"""Keeping the model loaded while the engine runs, and leaving it as it was found."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from gristmill.engines.errors import EngineError
from gristmill.engines.ollama.client import OllamaClient
from gristmill.engines.ollama.facts import find_running, stays_forever
from gristmill.engines.ollama.translation import Frozen, load_request
from gristmill.engines.ollama.wire import FOREVER, RunningModel, RunningModels
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

#: Ollama's own default, in seconds. No endpoint tells the server's (OLLAMA_KEEP_ALIVE).
DEFAULT_KEEP_ALIVE = 300


def keep_alive_before(running: RunningModel | None, now: float) -> int:
    """The ``keep_alive`` (seconds, or -1) to leave behind, from how the model was found at ``now`` (Unix time).

    The server tells only when a model expires, not after how long a pause: so at least the default.
    """
    if running is None:
        return DEFAULT_KEEP_ALIVE
    if stays_forever(running):
        return FOREVER
    try:
        remaining = datetime.fromisoformat(running.expires_at).timestamp() - now
    except ValueError:
        return DEFAULT_KEEP_ALIVE
    return max(DEFAULT_KEEP_ALIVE, round(remaining))


class Residency:
    """``load`` before the first row, ``restore`` after the last. Rows carry the same options and keep_alive -1."""

    def __init__(self, client: OllamaClient, frozen: Frozen, found: RunningModel | None) -> None:
        self._client = client
        self._frozen = frozen
        self._before = keep_alive_before(found, time.time())
        self._loaded: int | None = None

    async def load(self) -> RunningModel | None:
        """Load with the frozen options, however long it takes; how Ollama says it loaded the model.

        Raises EngineError. A client that gives up aborts the load, so that must outlast the slowest disk.
        """
        path, body = load_request(self._frozen, FOREVER)
        await self._client.ask(path, dict[str, Any], body, timeout=None)
        running = await self._running()
        self._loaded = None if running is None else running.context_length
        return running

    async def restore(self) -> None:
        """Give the model back the keep_alive it had. Never raises: the run is over, whatever Ollama says."""
        if self._before == FOREVER:
            return
        try:
            running = await self._running()
            # Not loaded, or loaded by someone else with other options: asking for it would load it again.
            if running is None or running.context_length != self._loaded:
                return
            path, body = load_request(self._frozen, self._before)
            await self._client.ask(path, dict[str, Any], body)
        except EngineError as error:
            log.warning(
                "the model's keep_alive was not restored",
                model=self._frozen.model, because=error.kind.value, content=error.message,
            )  # fmt: skip

    async def _running(self) -> RunningModel | None:
        running = await self._client.ask("/api/ps", RunningModels)
        return find_running(running.models, self._frozen.model)
