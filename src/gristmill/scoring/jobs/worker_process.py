"""The process that works on a scoring, as the server has it: started, spoken to, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import msgspec

from gristmill.scoring.jobs.messages import FromWorker, Task, ToWorker
from gristmill.telemetry.log import get_logger
from gristmill.user_error import UserError

log = get_logger(__name__)

#: Of what the process says; a request's shared part may be a long rubric with examples.
_LONGEST_LINE = 64 * 1024 * 1024
#: Of what a process prints, the end is kept, in bytes; after its death it has so long (seconds) to be read.
_KEPT_OUTPUT, _LAST_WORDS_SECONDS = 4096, 1.0
_WORKER = ("-m", "gristmill.scoring.jobs.worker")

_decoder: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)


class WorkerKilled(UserError):
    """The process was ended by a signal that somebody else has sent."""


class WorkerProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self._printed = b""
        # Not into the log as it is: libraries print parts of tables.
        self._reading = asyncio.create_task(self._read_printed())

    async def _read_printed(self) -> None:
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(65536):
            self._printed = (self._printed + data)[-_KEPT_OUTPUT:]

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._reading.cancel()

    async def say(self, message: Task | ToWorker) -> None:
        # Where it was killed, which ``hear`` tells: with uvloop, writing then is a RuntimeError.
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._in.write(msgspec.json.encode(message) + b"\n")
            await self._in.drain()

    async def hear(self) -> FromWorker:
        """Raises UserError where the process has ended."""
        line = await self._out.readline()
        if not line:
            code = await self._process.wait()
            await asyncio.wait([self._reading], timeout=_LAST_WORDS_SECONDS)
            printed = self._printed.decode("utf-8", "replace")
            log.error("the process of a scoring ended", because=f"exit code {code}", content=printed)
            if code == -signal.SIGVTALRM:
                raise UserError("The rubric takes too long to fill in: it is a template, write it with fewer loops.")
            if code < 0:
                raise WorkerKilled(
                    "The process that reads the table was ended by the system: most often there is too little memory "
                    "for the table. Score it in parts."
                )
            raise UserError(f"The process that reads the table ended with exit code {code}.")
        return _decoder.decode(line)


@contextlib.asynccontextmanager
async def started_worker() -> AsyncIterator[WorkerProcess]:
    """Ended at the end, whatever it is doing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_WORKER,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
        # Its own session: the terminal's interrupt goes to the server alone.
        start_new_session=True,
    )  # fmt: skip
    worker = WorkerProcess(process)
    try:
        yield worker
    finally:
        await worker.stop()
