"""An engine that stays up from one pass to the next."""

from __future__ import annotations

from gristmill.batches.waiting import Tell, start_waits_for, while_told
from gristmill.engines.protocol import Engine
from gristmill.engines.registry import EMBEDDED, EngineSettings, create_engine
from gristmill.scoring.own_loop import OwnLoop


class HeldEngine:
    """``started`` as often as wanted, all on ``loop``; then ``close``, from outside of it."""

    def __init__(self) -> None:
        self.loop = OwnLoop()
        self._engine: Engine | None = None
        self._row_tokens = 0

    async def started(self, settings: EngineSettings, tell: Tell, wait: float) -> Engine:
        """One engine for settings that differ in nothing but ``row_tokens``. Raises UserError where it cannot start, or
        takes more than ``wait`` seconds; ``tell`` as for ``while_told``."""
        # The context of an embedded engine is its model's; another's may be chosen by the longest row.
        if self._engine is not None and self._engine.name in EMBEDDED:
            return self._engine
        if self._engine is not None and settings.row_tokens <= self._row_tokens:
            return self._engine
        await self._stop()
        # Noted before it starts: a cancellation may come when it just has.
        engine = self._engine = create_engine(settings)
        self._row_tokens = settings.row_tokens
        try:
            await while_told(engine.start(), lambda: start_waits_for(engine), tell, wait)
        except BaseException:
            await self._stop()
            raise
        return engine

    def close(self) -> None:
        try:
            if self._engine is not None:
                self.loop.run(self._stop())
        finally:
            self.loop.close()

    async def _stop(self) -> None:
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None
