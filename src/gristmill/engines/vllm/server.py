"""One vLLM server from start to death, at a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from gristmill.engines.errors import EngineError
from gristmill.engines.http import HttpClient
from gristmill.engines.process_exit import describe_death
from gristmill.engines.supervision import ProcessDied
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

#: What messages call its address.
URL = "http://vllm"
#: How much of what it printed last is kept, in bytes: a trace of each of its processes.
_KEPT_OUTPUT = 65_536
#: How long to read on after it has died.
_LAST_WORDS_SECONDS = 2.0
#: It ends what it does within so long, or is killed.
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.5
#: Its health is asked for so often. It is taken to be away after so long without an answer, and to hang.
_PULSE_SECONDS, _SILENT_SECONDS, _HANGS_SECONDS = 5.0, 20.0, 120.0
#: Nobody asked for reports to vLLM's makers.
_NO_REPORTS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
_ERROR = re.compile(r"\b(?P<error>[A-Za-z]*(?:Error|Exception): .+)")
_OF_WHAT_FOLLOWS = re.compile(r"validation errors? for \w+$")
#: What stands before what vLLM's processes print.
_PROCESS = re.compile(r"^\((APIServer|EngineCore|Worker)[^)]*\)|^(ERROR|INFO|WARNING) [\d-]+ [\d:]+ \[[^\]]*\]")
_SAYS_NOTHING = re.compile(r"See root cause above|Engine core initialization failed")


class VllmServer:
    """``answered`` is counted by whoever asks it. Made by ``start``."""

    def __init__(self, process: asyncio.subprocess.Process, http: HttpClient) -> None:
        self._process = process
        self._http = http
        self._printed = b""
        self._killed_because = ""
        self._heard = time.monotonic()
        self._reading = asyncio.create_task(self._read_output())
        self._watching = asyncio.create_task(self._watch())
        self._listening: asyncio.Task[None] | None = None
        self.answered = 0
        self.alive = True

    @classmethod
    async def start(cls, arguments: list[str], socket: Path, timeout: float) -> VllmServer:
        """Returns when it answers. Raises ProcessDied."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)  # noqa: PTH108 - at once
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gristmill.engines.vllm.launch", str(socket.parent), *arguments, "--uds", str(socket),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            # A group of its own: its workers go with it.
            start_new_session=True, env=environment_of(os.environ),
        )  # fmt: skip
        server = cls(process, HttpClient("vLLM", URL, socket=str(socket)))
        try:
            await server._wait_until_ready(timeout)
        except BaseException:
            await server.stop()
            raise
        server._listening = asyncio.create_task(server._listen())
        return server

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def silent_seconds(self) -> float:
        silent = time.monotonic() - self._heard
        return silent if silent > _SILENT_SECONDS else 0.0

    async def wait_for_death(self) -> str:
        return await asyncio.shield(self._watching)

    async def stop(self) -> None:
        self.alive = False
        if self._listening is not None:
            self._listening.cancel()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait({self._watching}, timeout=_END_SECONDS)
        self._kill("stopped")
        await self._watching
        await self._http.close()

    async def _wait_until_ready(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not await self._is_healthy():
            if self._watching.done():
                raise ProcessDied(self._watching.result())
            if time.monotonic() > end:
                raise ProcessDied(f"it did not load the model within {timeout:g} seconds (-O start_timeout=SECONDS)")
            await asyncio.wait({self._watching}, timeout=_LOOK_SECONDS)

    async def _is_healthy(self) -> bool:
        try:
            healthy = (await self._http.fetch("/health", timeout=_PULSE_SECONDS)).status == 200
        except EngineError:
            return False
        if healthy:
            self._heard = time.monotonic()
        return healthy

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(_PULSE_SECONDS)
            await self._is_healthy()
            if time.monotonic() - self._heard > _HANGS_SECONDS:
                self._kill(f"killed, as it had not answered for {_HANGS_SECONDS:g} seconds")

    def _kill(self, because: str) -> None:
        """It, and what is left of its group."""
        if self._process.returncode is None:
            self._killed_because = self._killed_because or because
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _watch(self) -> str:
        """Wait for its death; how it died."""
        code = await self._process.wait()
        self.alive = False
        if self._listening is not None:
            self._listening.cancel()
        self._kill("")
        await asyncio.wait({self._reading}, timeout=_LAST_WORDS_SECONDS)
        self._reading.cancel()
        return self._killed_because or how_it_died(code, self._printed.decode("utf-8", "replace"))

    async def _read_output(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while data := await stdout.read(65536):
            self._printed = (self._printed + data)[-_KEPT_OUTPUT:]
            log.debug("vLLM printed", bytes=len(data), content=data.decode("utf-8", "replace").rstrip())


def environment_of(ours: Mapping[str, str]) -> dict[str, str]:
    """The key of a vLLM for others would be asked of us, who alone can open the socket."""
    return _NO_REPORTS | {name: value for name, value in ours.items() if name != "VLLM_API_KEY"}


def how_it_died(code: int, printed: str) -> str:
    """What several of its processes print of one failure ends with sentences that only say that there was one."""
    lines = printed.splitlines()
    telling = []
    for number, line in enumerate(lines):
        found = _ERROR.search(line)
        if found is None or _SAYS_NOTHING.search(line):
            continue
        error = found["error"]
        if _OF_WHAT_FOLLOWS.search(error) and number + 1 < len(lines):
            error = f"{error}: {_PROCESS.sub('', lines[number + 1]).strip()}"
        telling.append(error)
    return describe_death(code, telling[-1] if telling else printed, False)
