"""Keeping a process running that an engine computes in: one that has ended is replaced, and the reason is told until
that has succeeded."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from gristmill.engines.errors import unavailable
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import ENGINE_RESTARTS
from gristmill.user_error import NotNow

log = get_logger(__name__)


class ProcessDied(Exception):
    """The message says how."""


class EngineProcess(Protocol):
    """``alive`` turns False for good; ``answered`` counts its requests, refusals included; ``silent_seconds`` is how
    long it has shown no sign of life, 0 where that is no longer than usual."""

    @property
    def alive(self) -> bool: ...

    @property
    def pid(self) -> int: ...

    @property
    def answered(self) -> int: ...

    @property
    def silent_seconds(self) -> float: ...

    async def wait_for_death(self) -> str:
        """How it ended."""
        ...

    async def stop(self) -> None: ...


P = TypeVar("P", bound=EngineProcess)
#: What a process says of itself when it is ready.
R = TypeVar("R")

#: Seconds.
_MAX_DELAY = 60.0


class _State(enum.Enum):
    STOPPED = "stopped"
    #: A worker is loading the model, or has just ended and will be replaced at once.
    STARTING = "starting"
    RUNNING = "running"
    #: Too many have ended for another to be started at once.
    BACKING_OFF = "backing off"


class ProcessSupervisor(Generic[P, R]):
    """``start``, then ``worker`` from any number of tasks, then ``stop``. ``engine`` as it begins a sentence.
    ``start_worker`` raises UserError or ProcessDied; ``on_ready`` is called at every start, and ``on_death``, with how
    it ended, before a process that has ended is replaced. ``waits``: while one is just being started, ``worker`` waits
    for it."""

    def __init__(
        self,
        engine: str,
        start_worker: Callable[[], Awaitable[tuple[P, R]]],
        on_ready: Callable[[R], None],
        on_death: Callable[[str], None],
        waits: bool = True,
    ) -> None:
        self._engine = engine
        self._waits = waits
        self._start_worker = start_worker
        self._on_ready = on_ready
        self._on_death = on_death
        self._worker: P | None = None
        self._state = _State.STOPPED
        self._changed = asyncio.Event()
        self._down = f"{self._engine} has been stopped."
        self._keeping: asyncio.Task[None] | None = None

    @property
    def down_reason(self) -> str | None:
        """Why no request can be answered now; None while they can be."""
        if self._worker is None:
            return self._down
        if not self._worker.alive:
            return f"{self._engine}'s process has just ended."
        if silent := self._worker.silent_seconds:
            return f"{self._engine}'s process has not answered for {silent:.0f} seconds."
        return None

    async def start(self) -> None:
        """Raises UserError when the model cannot be loaded."""
        try:
            worker, ready = await self._start_worker()
        except ProcessDied as error:
            how = str(error).rstrip(".")
            raise NotNow(f"{self._engine}'s process ended while it was loading the model: {how}.") from None
        self._run(worker, ready)
        self._keeping = asyncio.create_task(self._keep(worker))

    async def stop(self) -> None:
        worker, self._worker = self._worker, None
        self._down = f"{self._engine} has been stopped."
        self._enter(_State.STOPPED)
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if worker is not None:
            await worker.stop()

    async def worker(self) -> P:
        """The running one, or the one that is just being started. Raises EngineError (unavailable) where there will be
        none for a while."""
        while self._state is not _State.RUNNING or self._worker is None or not self._worker.alive:
            if not self._waits or self._state in (_State.STOPPED, _State.BACKING_OFF):
                raise unavailable(self.down_reason or self._down)
            await self._changed.wait()
        if reason := self.down_reason:
            raise unavailable(reason)
        return self._worker

    def _enter(self, state: _State) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def _run(self, worker: P, ready: R) -> None:
        self._worker = worker
        self._on_ready(ready)
        self._enter(_State.RUNNING)

    async def _keep(self, worker: P) -> None:
        deaths = 0
        while True:
            how = await worker.wait_for_death()
            deaths = 1 if worker.answered else deaths + 1
            self._worker = None
            self._on_death(how)
            because = how.partition("; it printed")[0]
            log.error(
                "an engine's process ended",
                engine=self._engine,
                because=because,
                times_without_an_answer=deaths,
                content=how,
            )
            often = f" {deaths} times in a row without answering a request" if deaths > 1 else ""
            self._down = f"{self._engine}'s process ended{often} ({how}); it is being started again."
            worker, deaths = await self._start_again(deaths)

    async def _start_again(self, deaths: int) -> tuple[P, int]:
        """Until it succeeds; returns the worker, and how many have ended in a row by then."""
        failures = 0
        while True:
            delay = restart_delay(deaths)
            self._enter(_State.BACKING_OFF if delay else _State.STARTING)
            await asyncio.sleep(delay)
            self._enter(_State.STARTING)
            ENGINE_RESTARTS.inc()
            try:
                worker, ready = await self._start_worker()
            except ProcessDied as error:
                self._on_death(str(error))
                reason = f"its process ends while it loads the model ({error})"
            except Exception as error:
                reason = str(error) or repr(error)
            else:
                log.info("an engine is ready again", engine=self._engine, process=worker.pid)
                self._run(worker, ready)
                return worker, deaths
            deaths += 1
            failures += 1
            log.error("an engine cannot start", engine=self._engine, because=reason, times=failures)
            self._down = (
                f"{self._engine} cannot start, {failures} times in a row: {reason.rstrip('.')}. "
                "It is tried again, after longer and longer pauses of up to a minute."
            )


def restart_delay(deaths: int) -> float:
    """Seconds to wait after that many deaths in a row, without an answer between them. The first costs no wait."""
    return 0.0 if deaths <= 1 else min(2.0 ** (deaths - 2), _MAX_DELAY)
