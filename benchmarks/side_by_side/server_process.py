"""A server with OpenAI's API, started for a measurement on a free port, and asked for many rows at a time."""

from __future__ import annotations

import abc
import asyncio
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import receipt
from contenders import Prompt, Work, body_of

#: Seconds that it has for its end.
_END_SECONDS = 30


def stop_with_me() -> None:
    """A benchmark that is told to end stops its servers, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class ServerProcess(abc.ABC):
    """``start``, ``answer``, ``stop``. A server says what it is by ``command`` and ``slots``."""

    #: For messages to people.
    name: str
    #: Requests that it computes at a time.
    slots: int
    #: The model, as requests name it.
    model: str
    #: What requests say besides.
    fields: dict[str, Any] = {}  # noqa: RUF012 - never written to
    start_seconds = 120.0

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    @abc.abstractmethod
    def command(self, port: int) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Raises RuntimeError, with the end of what it printed, where it does not become ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._log = tempfile.NamedTemporaryFile(prefix="server-", suffix=".log")  # noqa: SIM115 - closed by stop
        self._process = await asyncio.create_subprocess_exec(
            *self.command(self._port),
            stdout=self._log,
            stderr=self._log,
            env=self.environment(),
            start_new_session=True,
        )
        end = time.monotonic() + self.start_seconds
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end and self._process.returncode is None:
                try:
                    async with session.get(f"{self.url}/health") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)
        printed = self.printed()[-1000:]
        await self.stop()
        raise RuntimeError(f"{self.name} did not start. It printed last:\n{printed}")

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # A group of its own: vLLM starts workers, which must go with it.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                await asyncio.wait_for(process.wait(), _END_SECONDS)
            except TimeoutError:
                continue
        self._log.close()

    def printed(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    async def answer(self, prompts: list[Prompt], work: Work) -> int:
        # Twice as many as it computes at a time: when one ends, another waits already.
        places = asyncio.Semaphore(2 * self.slots)
        no_limit = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=no_limit, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(prompt: Prompt) -> int:
                path = "completions" if isinstance(prompt, str) else "chat/completions"
                body = body_of(self.model, prompt, work) | self.fields
                async with places, session.post(f"{self.url}/v1/{path}", json=body) as response:
                    if response.status != 200:
                        raise RuntimeError(f"{self.name} refuses a row: {(await response.text())[:500]}")
                    tokens: int = (await response.json())["usage"]["completion_tokens"]
                    return tokens

            return sum(await asyncio.gather(*map(one, prompts)))

    def facts(self) -> dict[str, Any]:
        return {"command": receipt.without_folders(" ".join(self.command(0)))}
