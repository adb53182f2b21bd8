"""The engine's own process: ``python -m gristmill.engines.openvino.worker``, frames on standard input and output.

It ends when its input does, so it never outlives the server, however that ends. An interrupt from the terminal is the
server's to handle.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import msgspec

from gristmill.engines.openvino import frames
from gristmill.engines.openvino.frames import (
    Cancel,
    Failed,
    FromWorker,
    Load,
    LoadFailed,
    Ping,
    Pong,
    Ready,
    Submit,
    SubmitScore,
    ToWorker,
)
from gristmill.engines.protocol import ErrorKind
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.engines.openvino.runner import Runner


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output as they like: keep it for frames by moving theirs to standard error.
    pipe = Pipe(sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)
    threading.Thread(target=pipe.read, daemon=True).start()
    load = pipe.inbox.get()
    assert isinstance(load, Load)
    try:
        runner = _load(load, pipe.write)
    except UserError as error:
        pipe.write(LoadFailed(str(error), user_error=True))
        os._exit(1)
    except Exception:
        pipe.write(LoadFailed(traceback.format_exc(limit=-3), user_error=False))
        os._exit(1)
    try:
        _serve(pipe, runner)
    except BaseException:
        # Left by hand: the interpreter's own way out aborts when it meets the thread that reads the input.
        traceback.print_exc(limit=-3)
    os._exit(1)


class Pipe:
    """The server's end is one process, ours two threads: one reads and answers pings, the other computes."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self.inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        #: When the computing thread began what it is at, by the monotonic clock; None while it waits for requests.
        self.busy_since: float | None = None
        self._source = source
        self._target = target
        self._writing = threading.Lock()

    def write(self, frame: FromWorker) -> None:
        data = memoryview(frames.encode(frame))
        with self._writing:
            while data:
                data = data[self._target.write(data) :]

    def read(self) -> None:
        try:
            while len(head := self._source.read(frames.HEADER_BYTES)) == frames.HEADER_BYTES:
                header = frames.decode_header(head)
                self._take(header.request_id, self._source.read(header.length))
        except BaseException:
            traceback.print_exc(limit=-3)
            os._exit(1)
        # The server is gone. There is nothing to save, and the main thread may be deep in a kernel.
        os._exit(0)

    def _take(self, request_id: int, body: bytes) -> None:
        try:
            frame = frames.decode_to_worker(body)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            self.write(_failed_by(request_id, error))
            return
        if isinstance(frame, Ping):
            since = self.busy_since
            self.write(Pong(0.0 if since is None else time.monotonic() - since))
        else:
            self.inbox.put(frame)


def _serve(pipe: Pipe, runner: Runner) -> NoReturn:
    while True:
        while not pipe.inbox.empty() or not runner.busy:
            pipe.busy_since = None
            frame = pipe.inbox.get()
            pipe.busy_since = time.monotonic()
            if isinstance(frame, Submit):
                _enter(pipe, runner, frame.id, lambda submit=frame: runner.submit(submit))  # type: ignore[misc]
            elif isinstance(frame, SubmitScore):
                _enter(pipe, runner, frame.id, lambda submit=frame: runner.submit_score(submit))  # type: ignore[misc]
            elif isinstance(frame, Cancel):
                runner.cancel(frame.id)
        pipe.busy_since = time.monotonic()
        runner.step()


def _enter(pipe: Pipe, runner: Runner, request_id: int, submit: Callable[[], None]) -> None:
    """Whatever goes wrong while one request is read is that request's, and nobody else's."""
    try:
        submit()
    except BaseException as error:  # a panic of llguidance is no Exception
        runner.cancel(request_id)
        pipe.write(_failed_by(request_id, error))


def _failed_by(request_id: int, error: BaseException) -> Failed:
    """A request that cannot be nested or encoded as it is will not get better; what we did not foresee might."""
    if isinstance(error, RecursionError):
        message = "The request is nested too deeply."
        return Failed(request_id, ErrorKind.INVALID_REQUEST, message, 400, None, "invalid_value")
    if isinstance(error, msgspec.DecodeError):
        message = f"The embedded engine cannot read this request: {error}."
        return Failed(request_id, ErrorKind.INVALID_REQUEST, message, 400, None, "invalid_value")
    traceback.print_exception(error, limit=-3)
    message = f"The embedded engine failed on this request: {type(error).__name__}: {error}"[:500]
    return Failed(request_id, ErrorKind.INTERRUPTED, message, 500, None, None)


def _load(load: Load, emit: Callable[[FromWorker], None]) -> Runner:
    from gristmill.models.extra import require

    for package in ("jinja2", "llguidance", "numpy", "gguf", "openvino", "openvino_genai", "openvino_tokenizers"):
        require(package)
    # Imported here: reading the input must have begun before the first slow import.
    from gristmill.engines.openvino.grammar import Grammars
    from gristmill.engines.openvino.paged import PagedModel
    from gristmill.engines.openvino.prepare import prepare
    from gristmill.engines.openvino.prompt import JobReader
    from gristmill.engines.openvino.runner import Runner
    from gristmill.engines.openvino.vocabulary import Vocabulary
    from gristmill.models.locate import locate

    options = load.options
    folder, facts = prepare(locate(load.model), options.weights)
    try:
        model = PagedModel(folder, int(options.kv_cache_gb * 2**30), options.threads, options.attention)
    except MemoryError as error:
        raise UserError(
            f"This machine cannot reserve {options.kv_cache_gb:g} GiB for the KV cache: choose less with kv_cache_gb."
        ) from error
    vocabulary = Vocabulary(folder)
    context_length = min(facts.context_length, model.blocks * model.block_size)
    ends = frozenset(facts.eos_token_ids) | {vocabulary.eos_token_id}
    runner = Runner(
        model,
        vocabulary,
        JobReader(vocabulary, Grammars(vocabulary, ends), context_length),
        ends,
        options.step_tokens,
        options.max_rows,
        emit,
    )
    emit(Ready(context_length, model.fallback))
    return runner


if __name__ == "__main__":
    main()
