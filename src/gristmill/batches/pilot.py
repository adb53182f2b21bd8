"""A few rows of an input file run for real, to tell what all of them will take."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.batches.lines import lines_of
from gristmill.batches.waiting import Tell, silently, start_waits_for, while_told
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.inference.answer import Backend
from gristmill.inference.endpoints import ENDPOINTS
from gristmill.planning.estimate import Estimate, Pilot, PilotRow, choose_rows, estimate
from gristmill.planning.job_plan import JobPlan
from gristmill.planning.prompt_key import prompt_length, row_key
from gristmill.user_error import UserError
from gristmill.wire.errors import ApiError
from gristmill.wire.line_body import Fields, completed_body, default_fields

#: So many rows a slot, and the first in each may be left out of the timing.
_ROWS_A_SLOT = 4


def read_bodies(path: Path, wanted: set[int], defaults: Fields) -> dict[int, bytes]:
    """The bodies of some lines, by line, with ``defaults``."""
    found: dict[int, bytes] = {}
    for line in lines_of(path):
        if line.number in wanted and line.data is not None:
            found[line.number] = completed_body(line.data, defaults)
            if len(found) == len(wanted):
                break
    return found


class PilotSettings(NamedTuple):
    """``rows`` to run; ``concurrency`` None is the engine's own choice; ``request_timeout`` and ``start_wait``, for
    the engine to start, are in seconds."""

    engine: EngineSettings
    rows: int
    concurrency: int | None = None
    request_timeout: float = 600.0
    start_wait: float = 1800.0


async def pilot_file(
    path: Path,
    endpoint: str,
    defaults: dict[str, Any] | None,
    plan: JobPlan,
    settings: PilotSettings,
    tell: Tell = silently,
) -> tuple[Pilot, Estimate]:
    """Start the engine, run some rows of ``path``, which ``plan`` is the plan of, and stop it. ``tell`` is called with
    what is waited for. Raises UserError."""
    leaders, rows = choose_rows(plan, settings.rows)
    bodies = await asyncio.to_thread(read_bodies, path, {*leaders, *rows}, default_fields(defaults))
    engine = create_engine(settings.engine)
    began = time.perf_counter()
    await while_told(engine.start(), lambda: start_waits_for(engine), tell, settings.start_wait)
    start_seconds = time.perf_counter() - began
    try:
        dispatcher = Dispatcher(engine, window=settings.concurrency, timeout=settings.request_timeout)
        running = PilotRun(dispatcher, endpoint).run(bodies, leaders, rows)
        usual = f"{len(bodies):,} rows of the pilot"
        pilot = await while_told(running, lambda: dispatcher.waiting_for or usual, tell, math.inf)
    finally:
        await engine.stop()
    return pilot._replace(start_seconds=start_seconds), estimate(plan, pilot)


class PilotRun:
    """Asks a dispatcher as a batch would. ``run`` once."""

    def __init__(self, dispatcher: Dispatcher, endpoint: str) -> None:
        never = Stop()
        self._ask = Backend(dispatcher.asker(never), dispatcher.forwards)
        self._path = endpoint
        self._slots = dispatcher.window
        #: With the time of each answer.
        self._answered: list[tuple[float, PilotRow]] = []
        self._failures: list[str] = []

    async def run(self, bodies: dict[int, bytes], leaders: Sequence[int], rows: Sequence[int]) -> Pilot:
        """Raises UserError where no row was answered, with the first reason."""
        began = time.perf_counter()
        for line in leaders:
            await self._row(line, bodies[line])
        led, self._answered = self._answered, []
        begin = time.perf_counter()
        await asyncio.gather(*(self._row(line, bodies[line]) for line in rows))
        behind = self._answered
        if not (led or behind):
            raise UserError(f"No row of the pilot was answered: {self._failures[0]}")
        # Where slots keep a prefix each, the first row in each computes it; a long job does that once.
        skipped = self._slots if len(behind) >= _ROWS_A_SLOT * self._slots else 0
        start = behind[skipped - 1][0] if skipped else begin
        seconds = behind[-1][0] - start if behind else 0.0
        timed = [row for _, row in behind[skipped:]]
        return Pilot([row for _, row in led], begin - began, timed, seconds, len(self._failures))

    async def _row(self, line: int, body: bytes) -> None:
        try:
            answer = await ENDPOINTS[self._path].answer(body, self._ask)
        except (EngineError, ApiError) as error:
            self._failures.append(str(error))
            return
        prompt_bytes = prompt_length(row_key(self._path, msgspec.json.decode(body, type=Fields), {}).key)
        row = PilotRow(line, prompt_bytes, answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens)
        self._answered.append((time.perf_counter(), row))
