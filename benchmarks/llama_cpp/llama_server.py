"""A real llama.cpp server, asked as a careful user would ask it: slots in parallel, each reusing its cache."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

#: Tokens a slot needs: the rubric, a row, its answer.
_SLOT_TOKENS = 2048
#: Most probable tokens asked for with each answer's token, for scores: more than the eleven labels.
_TOP = 20


class Setting(NamedTuple):
    """``slots``: requests computed at a time (``-np``); ``unified``: one KV cache for all of them."""

    slots: int
    unified: bool

    def __str__(self) -> str:
        return f"-np {self.slots} {'--kv-unified' if self.unified else '--no-kv-unified'}"


#: What is tried before the best is measured.
SETTINGS = tuple(Setting(slots, unified) for slots in (1, 4, 8, 16) for unified in (False, True))


class LlamaServer:
    def __init__(self, binary: Path, weights: Path, setting: Setting, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.slots = setting.slots
        self._url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the object
        command = [str(binary), "-m", str(weights), "--port", str(port), "--host", "127.0.0.1"]
        command += ["-np", str(setting.slots), "-c", str(_SLOT_TOKENS * setting.slots)]
        command += ["--kv-unified" if setting.unified else "--no-kv-unified"]
        # A slot of a model with a sliding window can go back to the rubric only where its cache has all of it.
        command += ["--swa-full", "-fa", "on", "-t", str(threads), "-tb", str(threads), "--no-webui"]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(binary.parent)}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, env=environment)

    async def wait_until_ready(self) -> None:
        end = time.monotonic() + 120
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end and self._process.poll() is None:
                try:
                    async with session.get(f"{self._url}/health") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)
        self._log.seek(0)
        raise RuntimeError(f"llama.cpp's server did not start: {self._log.read()[-1000:]}")

    async def answer(self, prompts: list[str], tokens: int) -> list[dict[str, Any]]:
        """One greedy completion a prompt, each with the log-probabilities of its only token where ``tokens`` is 1."""
        places = asyncio.Semaphore(2 * self.slots)
        no_limit = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=no_limit, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(prompt: str) -> dict[str, Any]:
                body: dict[str, Any] = {
                    "prompt": prompt,
                    "n_predict": tokens,
                    "temperature": 0,
                    "cache_prompt": True,
                    "n_probs": _TOP if tokens == 1 else 0,
                }
                async with places, session.post(f"{self._url}/completion", json=body) as response:
                    response.raise_for_status()
                    answer: dict[str, Any] = await response.json()
                    return answer

            return await asyncio.gather(*(one(prompt) for prompt in prompts))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()
