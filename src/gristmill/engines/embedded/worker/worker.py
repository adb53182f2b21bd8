"""The engine's own process: ``python -m gristmill.engines.embedded.worker.worker``, frames on standard input and
output.

It ends when its input does, so it never outlives the server, however that ends. An interrupt from the terminal is the
server's to handle.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Protocol

import msgspec

from gristmill.engines.embedded.worker import frames
from gristmill.engines.embedded.worker.frames import (
    Failed,
    FromWorker,
    KeepPrefixes,
    Load,
    LoadFailed,
    Ping,
    Pong,
    Ready,
    failed_by,
)
from gristmill.engines.request_frames import AnySubmit, Cancel, Submit, SubmitEmbedding, SubmitScore
from gristmill.extras import require
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.engines.embedded.preparation import Preparation, Prepared


class Loop(Protocol):
    """What computes: an EngineLoop, or an EmbeddingLoop. ``step`` is called while it is ``busy``; ``interrupt``, from
    any thread, when an interactive request is on its way to ``enter``."""

    @property
    def busy(self) -> bool: ...
    def enter(self, prepared: Prepared) -> None: ...
    def cancel(self, request_id: int) -> None: ...
    def interrupt(self) -> None: ...
    def keep_prefixes(self, wanted: KeepPrefixes) -> None: ...
    def step(self) -> None: ...


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output as they like: keep it for frames by moving theirs to standard error.
    pipe = Pipe(sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)
    threading.Thread(target=pipe.read, daemon=True).start()
    load = pipe.inbox.get()
    assert isinstance(load, Load)
    try:
        engine, preparation = _load(load, pipe)
    except UserError as error:
        pipe.write(LoadFailed(str(error), user_error=True))
        os._exit(1)
    except Exception:
        pipe.write(LoadFailed(traceback.format_exc(limit=-3), user_error=False))
        os._exit(1)
    try:
        pipe.preparation.set_result(preparation)
        _serve(pipe, engine)
    except BaseException:
        # Left by hand: the interpreter's own way out aborts when it meets the thread that reads the input.
        traceback.print_exc(limit=-3)
    os._exit(1)


class Pipe:
    """The server's end is one process, ours several threads: one reads and answers pings, one computes, and those of
    the preparation lie between, so that a request is ready by the end of the step that it finds."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self.inbox: queue.SimpleQueue[Load | KeepPrefixes | Cancel | Prepared] = queue.SimpleQueue()
        self.preparation: Future[Preparation] = Future()
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
            self.write(failed_by(request_id, error))
            return
        if isinstance(frame, Ping):
            preparing = self.preparation.result().busy_since if self.preparation.done() else None
            since = [begun for begun in (self.busy_since, preparing) if begun is not None]
            self.write(Pong(time.monotonic() - min(since) if since else 0.0))
        elif isinstance(frame, Submit | SubmitScore | SubmitEmbedding):
            self.preparation.result().submit(frame)
        else:
            if isinstance(frame, Cancel):
                self.preparation.result().cancel(frame.id)
            self.inbox.put(frame)


def _serve(pipe: Pipe, engine: Loop) -> NoReturn:
    while True:
        while not pipe.inbox.empty() or not engine.busy:
            pipe.busy_since = None
            frame = pipe.inbox.get()
            pipe.busy_since = time.monotonic()
            if isinstance(frame, Cancel):
                engine.cancel(frame.id)
            elif isinstance(frame, KeepPrefixes):
                engine.keep_prefixes(frame)
            elif not isinstance(frame, Load):
                engine.enter(frame)
        pipe.busy_since = time.monotonic()
        engine.step()


def _load(load: Load, pipe: Pipe) -> tuple[Loop, Preparation]:
    for package in ("jinja2", "llguidance", "numpy"):
        require(package)
    # Imported here: reading the input must have begun before the first slow import.
    from gristmill.engines.embedded.embeddings.embedding_loop import EmbeddingLoop
    from gristmill.engines.embedded.embeddings.embedding_reader import EmbeddingReader
    from gristmill.engines.embedded.embeddings.embedding_runner import LoadedEmbedder
    from gristmill.engines.embedded.grammar import Grammars
    from gristmill.engines.embedded.model_runner import EmbeddedOptions, LoadModel
    from gristmill.engines.embedded.preparation import Preparation, RequestReader, special_stops
    from gristmill.engines.embedded.prompt import template_digest
    from gristmill.engines.embedded.scheduling.engine_loop import EngineLoop
    from gristmill.engines.embedded.scheduling.split_loop import SplitLoop
    from gristmill.engines.embedded.scheduling.step_plan import DEFAULT_LIMITS
    from gristmill.engines.embedded.scheduling.step_times import settle_limits

    options = msgspec.convert(load.options, EmbeddedOptions)
    module, _, function = load.loader.partition(":")
    load_model: LoadModel = getattr(importlib.import_module(module), function)
    try:
        model = load_model(load.model, load.options)
    except MemoryError as error:
        raise UserError(
            f"This machine cannot reserve {options.kv_cache_gb:g} GiB for the KV cache: choose less with kv_cache_gb."
        ) from error
    engine: Loop
    read: Callable[[AnySubmit], Prepared]
    if isinstance(model, LoadedEmbedder):
        read = EmbeddingReader(model).read
        rows, tokens = options.max_rows or DEFAULT_LIMITS.max_rows, options.step_tokens or DEFAULT_LIMITS.step_tokens
        engine = EmbeddingLoop(model.runner, tokens, rows, pipe.write)
        pipe.write(Ready(model.context_length, model.notices, rows, tokens, embeds=True, computing=model.computing))
    else:
        runner, vocabulary = model.runner, model.vocabulary
        defaults = model.defaults.with_template(options.template)
        ends = model.ends | special_stops(vocabulary, defaults.parameters.stop)
        (tokens, rows), source = settle_limits(options, model)
        engine = writer = EngineLoop(runner, vocabulary, ends, tokens, rows, pipe.write)
        room = writer.scheduler.memory.tokens
        if model.scorer is not None:
            scoring = EngineLoop(model.scorer, vocabulary, ends, tokens, 1, pipe.write, writer.pace)
            room = min(room, scoring.scheduler.memory.tokens)
            engine = SplitLoop(writer, scoring)
        longest = defaults.parameters.context_length or model.context_length
        context_length = min(longest, model.context_length, room)
        read = RequestReader(vocabulary, Grammars(vocabulary, ends), context_length, defaults, model.eyes).read
        sees = model.eyes is not None
        computing = model.computing and msgspec.structs.replace(
            model.computing, chat_template=template_digest(vocabulary, defaults)
        )
        pipe.write(Ready(context_length, model.notices, rows, tokens, source, sees=sees, computing=computing))

    def deliver(prepared: Prepared) -> None:
        pipe.inbox.put(prepared)
        if not isinstance(prepared, Failed) and prepared.interactive:
            engine.interrupt()

    return engine, Preparation(read, deliver)


if __name__ == "__main__":
    main()
