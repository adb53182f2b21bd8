"""Whether a worker process is there, asked again and again; one that is stuck is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gristmill.engines.embedded.worker.frames import Pong
from gristmill.engines.process_exit import is_stopped


class Heartbeat(NamedTuple):
    """Seconds. A worker is asked every ``interval`` whether it is there. Where it has not answered for ``silence`` it
    is not ready; it is killed when it has been at one step, or one request, for ``stuck``, or has been silent as long
    without having been stopped by a signal."""

    interval: float = 2.0
    silence: float = 10.0
    stuck: float = 600.0


class Pulse:
    """Of the worker ``pid``, from now until ``stop``. ``ask`` sends a ping; ``kill`` takes the reason."""

    def __init__(self, heartbeat: Heartbeat, pid: int, ask: Callable[[], None], kill: Callable[[str], None]) -> None:
        self._heartbeat = heartbeat
        self._pid = pid
        self._ask = ask
        self._kill = kill
        #: For how many intervals the last ping has not been answered; None where it has.
        self._missed: int | None = None
        self._asking = asyncio.create_task(self._keep_asking())

    @property
    def silent_seconds(self) -> float:
        """How long it has left a ping unanswered; 0 where it has not for longer than is usual."""
        # Counted, not timed: where this event loop was held up, the answer may be there and only not read yet.
        silent = (self._missed or 0) * self._heartbeat.interval
        return silent if silent >= self._heartbeat.silence else 0.0

    def note(self, answer: Pong) -> None:
        self._missed = None
        if answer.busy_seconds > self._heartbeat.stuck:
            self._kill(f"killed, as it had been at one step or request for {answer.busy_seconds:.0f} seconds")

    def stop(self) -> None:
        self._asking.cancel()

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat.interval)
            if self._missed is None:
                self._missed = 0
                self._ask()
                continue
            self._missed += 1
            if self.silent_seconds > self._heartbeat.stuck and not is_stopped(self._pid):
                self._kill(f"killed, as it had not answered for {self.silent_seconds:.0f} seconds")
