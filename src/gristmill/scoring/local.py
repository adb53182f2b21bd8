"""Running a pass in this process."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from gristmill.batches.host import HostSettings
from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.local_run import Job, LocalRun
from gristmill.batches.longest_row import longest_row_tokens
from gristmill.batches.waiting import start_waits_for, while_told
from gristmill.engines.embedded.engine import EmbeddedEngine
from gristmill.engines.protocol import LabelScorer
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.scoring.backend import BatchView, Interrupted, MakeView, NoView, PassFiles
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, Method
from gristmill.storage.open import StorageSettings
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch

T = TypeVar("T")

_LOOK_SECONDS = 0.2


class LocalBackend:
    """An engine of this machine. A pass that has ended is not run again."""

    def __init__(
        self,
        host: HostSettings,
        reuse_answers: bool = False,
        make_view: MakeView = NoView,
        stop_on: Sequence[signal.Signals] = (),
    ) -> None:
        """``host``: the storage in it is replaced by each pass's own. ``stop_on``: signals that
        end a run in good order, which only a command may take."""
        self._host = host
        self._reuse_answers = reuse_answers
        self._make_view = make_view
        self._stop_on = stop_on

    @property
    def labels_method(self) -> Method:
        return LABELS if isinstance(create_engine(self._host.engine), LabelScorer) else TOP_LOGPROBS

    @functools.cached_property
    def begins_answers(self) -> bool:
        with self._make_view() as view:
            return "continue_final_message" in _await(self._parameters(view))

    @functools.cached_property
    def model(self) -> str:
        return _model_of(self._host.engine)

    @property
    def place(self) -> str:
        return f"{self._host.engine.engine} engine"

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        engine = self._host.engine
        identity = identity | {"engine": engine.engine, "model": engine.model}
        local = LocalRun(folder / "run", Job(input_file, endpoint, identity, shared, self._reuse_answers))
        local.check()
        batch = local.ended()
        if batch is None:
            row_tokens = longest_row_tokens(input_file, len(msgspec.json.encode(shared)), shared.get("max_tokens", 0))
            storage = StorageSettings(local.state)
            settings = self._host._replace(storage=storage, engine=engine._replace(row_tokens=row_tokens))
            with self._make_view() as view:
                batch = _await(self._until_ended(local, settings, view))
            view.ended(batch)
        if batch.status == "failed":
            errors = batch.errors.data if batch.errors else []
            raise UserError("The rows were refused, nothing ran: " + "; ".join(each.message for each in errors[:3]))
        files = [local.path_of(file) for file in (batch.output_file_id, batch.error_file_id) if file is not None]
        return PassFiles(batch, files)

    async def _parameters(self, view: BatchView) -> frozenset[str]:
        # Of some engines they are known only once they have started, as they go by the model.
        engine = create_engine(self._host.engine)
        await while_told(engine.start(), lambda: start_waits_for(engine), view.waiting, self._host.start_wait)
        try:
            return engine.capabilities.parameters
        finally:
            await engine.stop()

    async def _until_ended(self, local: LocalRun, settings: HostSettings, view: BatchView) -> Batch:
        batch = await local.run(settings, view.update, view.waiting, self._stop_on)
        if not is_terminal(batch.status):
            raise Interrupted(local.state)
        return batch


def _await(run: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own where this one runs an event loop already, as notebooks do."""
    try:
        caller = asyncio.current_task()
    except RuntimeError:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run)
    return _await_in_thread(run, caller)


def _await_in_thread(run: Coroutine[Any, Any, T], caller: asyncio.Task[Any] | None) -> T:
    """An interrupt ends the run, which puts its things away first, and stays the caller's."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    ended: Future[T] = Future()

    async def work() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await run

    def run_loop() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(work())
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(result)

    thread = threading.Thread(target=run_loop)
    thread.start()
    try:
        while not wait([ended], timeout=_LOOK_SECONDS).done:
            # asyncio.run makes a cancellation of an interrupt, which this thread, busy here, sees only if it looks.
            if caller is not None and caller.cancelling():
                raise asyncio.CancelledError
        return ended.result()
    except (KeyboardInterrupt, asyncio.CancelledError):
        loop, task = started.result()
        if not ended.done():
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()


def _model_of(engine: EngineSettings) -> str:
    """What requests call the engine's model, without starting it. Raises UserError where it must be said."""
    made = create_engine(engine)
    if isinstance(made, EmbeddedEngine):
        return made.served_name()
    if engine.engine == "simulated":
        return engine.model or "simulated"
    if engine.model is None:
        raise UserError(f"Say which model of the {engine.engine} server shall score, with --model.")
    return engine.model
