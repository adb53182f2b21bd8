"""Our end of the driver process: start it, write frames to it, hand over its frames, notice its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from gristmill.engines.process_exit import describe_death
from gristmill.engines.ray import frames
from gristmill.engines.ray.frames import Connect, Emit, Leave, ToDriver
from gristmill.length_prefix import next_body
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

_KEPT_OUTPUT = 4096
#: Seconds. A driver that is told to leave ends the replicas, which end their engines.
_LEAVE_SECONDS = 30.0


class DriverProcess:
    """From start to end; ``take`` is called with each of its frames. Made by ``start``."""

    def __init__(self, process: asyncio.subprocess.Process, take: Emit, own_cluster: bool) -> None:
        self._process = process
        self._own_cluster = own_cluster
        self._take = take
        self._printed = b""
        self._reading = [asyncio.create_task(self._read_frames()), asyncio.create_task(self._read_output())]

    @classmethod
    async def start(cls, connect: Connect, take: Emit) -> DriverProcess:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gristmill.engines.ray.driver",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Its own session: the terminal's interrupt goes to us alone.
            start_new_session=True,
        )  # fmt: skip
        driver = cls(process, take, own_cluster=not connect.address)
        driver.send(connect)
        return driver

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: ToDriver) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(frames.encode(frame))

    async def wait(self) -> str:
        """How it ended."""
        code = await self._process.wait()
        if self._own_cluster:
            # Most of it ends with its driver, but not all at once.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        # A local cluster's processes hold its standard error open, so not for ever.
        await asyncio.wait(self._reading, timeout=1.0)
        for task in self._reading:
            task.cancel()
        return describe_death(code, self._printed.decode("utf-8", "replace"), False)

    async def stop(self) -> None:
        """Let it end the replicas, and wait for it. One that hangs is killed."""
        self.send(Leave())
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self.wait()
        except TimeoutError:
            log.warning("Ray's driver hangs, and is killed")
            self.kill()
            await self.wait()
        finally:
            self.kill()

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _read_frames(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while True:
                self._take(frames.decode_from_driver(await next_body(stdout)))
        except asyncio.IncompleteReadError:
            return
        except Exception as error:
            log.error("what Ray's driver sent could not be read", exc_info=error)
            self.kill()

    async def _read_output(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while data := await stderr.read(65536):
            self._printed = (self._printed + data)[-_KEPT_OUTPUT:]
            log.debug("Ray's driver printed", bytes=len(data), content=data.decode("utf-8", "replace").rstrip())
