"""A vLLM server, with its prefix cache."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import receipt

from server_process import ServerProcess

_CONTEXT = 4096


class VllmServer(ServerProcess):
    name = "vLLM"
    #: It takes as many; so many keep it busy.
    slots = 128
    # It compiles the model at its first start.
    start_seconds = 1800.0

    def __init__(self, binary: str, model: str, more: list[str]) -> None:
        """``more``: arguments besides."""
        super().__init__()
        self.model = model
        self._binary, self._more = binary, more

    def command(self, port: int) -> list[str]:
        command = [self._binary, "serve", self.model, "--host", "127.0.0.1", "--port", str(port)]
        return [*command, "--enable-prefix-caching", "--max-model-len", str(_CONTEXT), *self._more]

    def facts(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/version", timeout=60) as answer:
            return super().facts() | {
                "version": json.loads(answer.read())["version"],
                "model": receipt.without_folders(self.model),
            }
