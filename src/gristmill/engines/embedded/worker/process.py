"""The server's end of one worker process: start it, send it requests, take its frames, notice its death."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Awaitable
from typing import Any

from gristmill.engines.answer_frames import Decoded, Done, Embedded, Scored
from gristmill.engines.embedded.worker import frames
from gristmill.engines.embedded.worker.frames import (
    Failed,
    FromWorker,
    KeepPrefixes,
    Load,
    LoadFailed,
    Notice,
    Ping,
    Pong,
    PrefixRead,
    Ready,
)
from gristmill.engines.embedded.worker.heartbeat import Heartbeat, Pulse
from gristmill.engines.errors import EngineError, ErrorKind, crashed, unavailable
from gristmill.engines.process_exit import describe_death, out_of_memory_kills
from gristmill.engines.protocol import (
    Completion,
    EmbeddingRequest,
    Embeddings,
    LabelRequest,
    LabelScores,
    OnDelta,
    Request,
)
from gristmill.engines.request_frames import AnySubmit, Cancel, submission
from gristmill.engines.supervision import ProcessDied
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import PREFIX_TOKENS_READ
from gristmill.user_error import UserError

log = get_logger(__name__)

#: How much of what the worker printed last is kept, in bytes, to say why it died.
_KEPT_OUTPUT = 4096
#: How long to read on after the worker has died.
_LAST_WORDS_SECONDS = 2.0


class WorkerProcess:
    """One worker from start to death; ``alive`` turns False for good. Made by ``start``."""

    def __init__(self, process: asyncio.subprocess.Process, heartbeat: Heartbeat) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Any], OnDelta | None]] = {}
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._printed = b""
        self._killed_before = out_of_memory_kills()
        self._killed_because = ""
        self._stopping = False
        self._reading = [asyncio.create_task(self._read_frames()), asyncio.create_task(self._read_output())]
        self._pulse = Pulse(heartbeat, process.pid, lambda: self._send(Ping()), self._kill)
        self._watching = asyncio.create_task(self._watch())
        self.alive = True
        #: Requests it has answered, refusals included.
        self.answered = 0

    @classmethod
    async def start(
        cls, load: Load, heartbeat: Heartbeat, keeping: Awaitable[KeepPrefixes | None]
    ) -> tuple[WorkerProcess, Ready]:
        """Returns when the model is loaded and the worker told what ``keeping`` says of prefixes on disk. Raises
        UserError when it cannot be loaded, ProcessDied when the worker ends before it has said why."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gristmill.engines.embedded.worker.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Its own session: the terminal's interrupt goes to the server alone.
            start_new_session=True,
        )  # fmt: skip
        worker = cls(process, heartbeat)
        try:
            worker._send(load)
            ready = await worker._ready
            if prefixes := await keeping:
                worker._send(prefixes)
            return worker, ready
        except BaseException:
            await worker.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def silent_seconds(self) -> float:
        """How long it has left a ping unanswered; 0 where it has not for longer than is usual."""
        return self._pulse.silent_seconds

    async def complete(self, request: Request, on_delta: OnDelta | None, interactive: bool) -> Completion:
        """Raises EngineError; interrupted when the worker dies meanwhile."""
        frame = submission(next(self._ids), request, on_delta is not None, interactive)
        answer: Completion = await self._ask(frame, on_delta)
        return answer

    async def score(self, request: LabelRequest, interactive: bool) -> LabelScores:
        """Raises EngineError; interrupted when the worker dies meanwhile."""
        frame = submission(next(self._ids), request, False, interactive)
        answer: LabelScores = await self._ask(frame, None)
        return answer

    async def embed(self, request: EmbeddingRequest, interactive: bool) -> Embeddings:
        """Raises EngineError; interrupted when the worker dies meanwhile."""
        frame = submission(next(self._ids), request, False, interactive)
        answer: Embeddings = await self._ask(frame, None)
        return answer

    async def _ask(self, frame: AnySubmit, on_delta: OnDelta | None) -> Any:
        try:
            data = frames.encode(frame)
        except (ValueError, OverflowError, RecursionError) as error:
            message = f"The request cannot be handed to the embedded engine: {error}."
            raise EngineError(ErrorKind.INVALID_REQUEST, message, code="invalid_value") from None
        if not self.alive:
            raise unavailable("The embedded engine's process has just ended.")
        number = frame.id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, on_delta)
        try:
            self._write(data)
            return await future
        except asyncio.CancelledError:
            self._send(Cancel(number))
            raise
        finally:
            del self._waiting[number]

    async def stop(self) -> None:
        """End the worker and wait for it. Closing its input would do, but not while a kernel is running."""
        self.alive = False
        self._stopping = True
        self._kill("stopped")
        await self._watching

    async def wait_for_death(self) -> str:
        """How it ended."""
        return await asyncio.shield(self._watching)

    def _kill(self, because: str) -> None:
        if self._process.returncode is None:
            self._killed_because = self._killed_because or because
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _send(self, frame: frames.ToWorker) -> None:
        self._write(frames.encode(frame))

    def _write(self, data: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(data)

    async def _read_frames(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while True:
                header = frames.decode_header(await stdout.readexactly(frames.HEADER_BYTES))
                self._take(frames.decode_from_worker(await stdout.readexactly(header.length)))
        except asyncio.IncompleteReadError:
            return
        except Exception as error:
            self._kill(f"killed, as what it sent could not be read: {error!r}")

    def _take(self, frame: FromWorker) -> None:
        if isinstance(frame, Pong):
            self._pulse.note(frame)
        elif isinstance(frame, Notice):
            log.warning("embedded engine", notice=frame.text)
        elif isinstance(frame, PrefixRead):
            PREFIX_TOKENS_READ.inc(frame.tokens)
            log.info("embedded engine", notice=_read_in_words(frame))
        elif isinstance(frame, Ready | LoadFailed):
            if self._ready.done():
                return
            if isinstance(frame, Ready):
                self._ready.set_result(frame)
            else:
                self._ready.set_exception(_load_error(frame))
        elif frame.id in self._waiting:
            self.answered += not isinstance(frame, Decoded)
            future, on_delta = self._waiting[frame.id]
            if future.done():
                return
            if isinstance(frame, Done):
                future.set_result(frame.completion)
            elif isinstance(frame, Scored):
                future.set_result(frame.scores)
            elif isinstance(frame, Embedded):
                future.set_result(frame.embeddings)
            elif isinstance(frame, Failed):
                future.set_exception(
                    EngineError(frame.kind, frame.message, status=frame.status, param=frame.param, code=frame.code)
                )
            elif on_delta is not None:
                _call(on_delta, frame, future)

    async def _watch(self) -> str:
        """Wait for the worker's death, and tell everybody who waits for it."""
        code = await self._process.wait()
        self.alive = False
        self._pulse.stop()
        # What it wrote last is worth reading; but a process it forked may hold its pipes open, so not for ever.
        await asyncio.wait(self._reading, timeout=_LAST_WORDS_SECONDS)
        for task in self._reading:
            task.cancel()
        killed = out_of_memory_kills() > self._killed_before
        printed = self._printed.decode("utf-8", "replace")
        how = self._killed_because or describe_death(code, printed, killed)
        if not self._ready.done():
            self._ready.set_exception(ProcessDied(how))
        # Nobody may be waiting for it any more, which is no fault.
        if not self._ready.cancelled():
            self._ready.exception()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(self._error_of_death(how))
        return how

    def _error_of_death(self, how: str) -> EngineError:
        if self._stopping:
            return unavailable("The embedded engine has been stopped.")
        # Each request in flight may be the one that killed it.
        return crashed(
            "the embedded engine", f"The embedded engine's process ended while it was computing this request ({how})."
        )

    async def _read_output(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while data := await stderr.read(65536):
            self._printed = (self._printed + data)[-_KEPT_OUTPUT:]
            log.debug("embedded engine printed", bytes=len(data), content=data.decode("utf-8", "replace").rstrip())


def _call(on_delta: OnDelta, frame: Decoded, future: asyncio.Future[Any]) -> None:
    try:
        on_delta(frame.delta)
    except Exception as error:
        # The caller's own fault: hand it back to the caller, not to the reader of everybody's frames.
        future.set_exception(error)


def _read_in_words(read: PrefixRead) -> str:
    return f"A prefix of {read.tokens:,} tokens was read from the disk in {read.seconds:.1f} s, instead of computed."


def _load_error(failed: LoadFailed) -> UserError:
    if failed.user_error:
        return UserError(failed.message)
    last = next((line.strip() for line in reversed(failed.message.splitlines()) if line.strip()), "")
    return UserError(f"The embedded engine could not load the model: {last}")
