"""Ollama as a contender: through Gristmill's own engine, and out of memory again when its turn is over."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from typing import Any

from contenders import EngineContender

from gristmill.engines.ollama.settings import base_url
from gristmill.engines.registry import EngineSettings

#: Tokens that a row needs, prompt and answer together.
_ROW_TOKENS = 2048
#: An address to listen on that is none to ask at.
_ANY = "0.0.0.0"


def server_url() -> str:
    """The server of OLLAMA_HOST."""
    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1"
    return base_url(host.replace(_ANY, "127.0.0.1"))


class OllamaContender(EngineContender):
    def __init__(self, model: str, parallel: int) -> None:
        """``parallel``: the server's OLLAMA_NUM_PARALLEL."""
        self._url, self._name = server_url(), model
        super().__init__(EngineSettings("ollama", model, self._url, {"parallel": str(parallel)}, _ROW_TOKENS))

    async def stop(self) -> None:
        was_loaded = self._engine is not None
        await super().stop()
        if was_loaded:
            # The next contender needs the GPU's memory.
            await asyncio.to_thread(self._call, "/api/generate", {"model": self._name, "keep_alive": 0})

    def facts(self) -> dict[str, Any]:
        all_loaded = self._call("/api/ps")["models"]
        loaded = next((each for each in all_loaded if each["name"].startswith(self._name)), {})
        size, on_gpu = loaded.get("size", 0), loaded.get("size_vram", 0)
        return {
            "version": self._call("/api/version")["version"],
            "model": self._name,
            "parallel": self.slots,
            "share_on_gpu": round(on_gpu / size, 3) if size else None,
        }

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())
