"""The server's end of the worker process: start it, send it requests, take its frames, notice its death."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
from typing import Any

from gristmill.engines.openvino import frames
from gristmill.engines.openvino.frames import (
    Cancel,
    Done,
    Failed,
    FromWorker,
    Load,
    LoadFailed,
    Ready,
    Scored,
    Submit,
    SubmitScore,
    Text,
)
from gristmill.engines.openvino.options import OpenVinoOptions
from gristmill.engines.protocol import Completion, EngineError, ErrorKind, LabelRequest, LabelScores, OnText, Request
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest

#: How much of what the worker printed last is kept, in bytes, to say why it died.
_KEPT_OUTPUT = 4096
#: How long to read on after the worker has died.
_LAST_WORDS_SECONDS = 2.0


class WorkerProcess:
    """One worker from start to death; ``alive`` turns False for good. Made by ``start``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._waiting: dict[int, tuple[asyncio.Future[Any], OnText | None]] = {}
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._printed = b""
        self._reading = [asyncio.create_task(self._read_frames()), asyncio.create_task(self._read_output())]
        self._watching = asyncio.create_task(self._watch())
        self.alive = True

    @classmethod
    async def start(cls, model: str, options: OpenVinoOptions) -> tuple[WorkerProcess, Ready]:
        """Returns when the model is loaded. Raises UserError when it cannot be, EngineError (unavailable) when
        the worker dies of something else."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gristmill.engines.openvino.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Its own session: the terminal's interrupt goes to the server alone.
            start_new_session=True,
        )  # fmt: skip
        worker = cls(process)
        worker._send(Load(model, options))
        try:
            return worker, await worker._ready
        except BaseException:
            await worker.stop()
            raise

    async def complete(self, request: Request, on_text: OnText | None) -> Completion:
        """Raises EngineError; unavailable when the worker dies meanwhile."""
        number, stream = next(self._ids), on_text is not None
        if isinstance(request, ChatCompletionRequest):
            frame = Submit(number, chat=request, stream=stream)
        else:
            frame = Submit(number, text=request, stream=stream)
        answer: Completion = await self._ask(frame, on_text)
        return answer

    async def score(self, request: LabelRequest) -> LabelScores:
        """Raises EngineError; unavailable when the worker dies meanwhile."""
        number, prompt, labels = next(self._ids), request.prompt, request.labels
        chat, text = (None, prompt) if isinstance(prompt, str) else (prompt, None)
        texts = [label for label in labels if isinstance(label, str)]
        ids = [label for label in labels if isinstance(label, int)]
        frame = SubmitScore(
            number, request.model, chat, text, texts or None, ids or None,
            request.add_generation_prompt, request.continue_final_message,
        )  # fmt: skip
        answer: LabelScores = await self._ask(frame, None)
        return answer

    async def _ask(self, frame: Submit | SubmitScore, on_text: OnText | None) -> Any:
        number = frame.id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, on_text)
        try:
            self._send(frame)
            return await future
        except asyncio.CancelledError:
            self._send(Cancel(number))
            raise
        finally:
            del self._waiting[number]

    async def stop(self) -> None:
        """End the worker and wait for it. Closing its input would do, but not while a kernel is running."""
        self.alive = False
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._watching

    def _send(self, frame: frames.ToWorker) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(frames.encode(frame))

    async def _read_frames(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            while True:
                length = int.from_bytes(await stdout.readexactly(frames.LENGTH_BYTES), "little")
                self._take(frames.decode_from_worker(await stdout.readexactly(length)))
        except asyncio.IncompleteReadError:
            return

    def _take(self, frame: FromWorker) -> None:
        if isinstance(frame, Ready):
            self._ready.set_result(frame)
        elif isinstance(frame, LoadFailed):
            error = UserError if frame.user_error else _could_not_load
            self._ready.set_exception(error(frame.message))
        elif frame.id in self._waiting:
            future, on_text = self._waiting[frame.id]
            if future.done():
                return
            if isinstance(frame, Done):
                future.set_result(frame.completion)
            elif isinstance(frame, Scored):
                future.set_result(frame.scores)
            elif isinstance(frame, Failed):
                future.set_exception(
                    EngineError(frame.kind, frame.message, status=frame.status, param=frame.param, code=frame.code)
                )
            elif on_text is not None:
                _call(on_text, frame, future)

    async def _watch(self) -> None:
        """Wait for the worker's death, and tell everybody who waits for it."""
        code = await self._process.wait()
        expected, self.alive = not self.alive, False
        # What it wrote last is worth reading; but a process it forked may hold its pipes open, so not for ever.
        await asyncio.wait(self._reading, timeout=_LAST_WORDS_SECONDS)
        for task in self._reading:
            task.cancel()
        how = "was stopped" if expected else f"has died ({_describe_exit(code)})"
        error = _unavailable(how, "" if expected else self._printed.decode("utf-8", "replace"))
        if not self._ready.done():
            self._ready.set_exception(error)
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        # Nobody may be waiting for it any more, which is no fault.
        if not self._ready.cancelled():
            self._ready.exception()

    async def _read_output(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while data := await stderr.read(65536):
            self._printed = (self._printed + data)[-_KEPT_OUTPUT:]


def _call(on_text: OnText, frame: Text, future: asyncio.Future[Any]) -> None:
    try:
        on_text(frame.choice, frame.text)
    except Exception as error:
        # The caller's own fault: hand it back to the caller, not to the reader of everybody's frames.
        future.set_exception(error)


def _describe_exit(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _could_not_load(traceback: str) -> EngineError:
    return _unavailable("could not load the model", traceback)


def _unavailable(how: str, printed: str) -> EngineError:
    last = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")
    reason = f": {last}" if last else "."
    return EngineError(ErrorKind.UNAVAILABLE, f"The embedded engine's process {how}{reason}", status=503)
