"""Everything a process needs to run batches: storage, engine, dispatcher, supervisor; with or without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gristmill.batches.input_reader import Limits
from gristmill.batches.service import BatchService
from gristmill.batches.supervisor import Supervisor
from gristmill.batches.waiting import start_waits_for
from gristmill.dispatch.aliases import check_aliases
from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.engines.protocol import Engine
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.notify.notifier import Notifier
from gristmill.notify.sender import Sender
from gristmill.notify.webhooks import WebhookService, WebhookSettings
from gristmill.storage.answers import AnswerStore
from gristmill.storage.housekeeping import keep_house
from gristmill.storage.open import OpenStorage, StorageSettings
from gristmill.storage.protocol import Storage
from gristmill.tasks import supervised
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.spans import Spans, SpanSettings, wanted
from gristmill.telemetry.throughput import PERIOD, Throughput
from gristmill.user_error import UserError

log = get_logger(__name__)

#: Seconds in which webhooks under way may be answered at a stop.
_NOTIFIER_GRACE = 5.0


class HostSettings(NamedTuple):
    """``concurrency`` is the number of requests in flight (None: what the engine asks for); times in seconds."""

    storage: StorageSettings
    engine: EngineSettings
    concurrency: int | None = None
    request_timeout: float = 600.0
    stop_grace: float = 20.0
    #: Seconds after which an ended batch is forgotten; None: never.
    keep_ended_batches: int | None = None
    limits: Limits = Limits()
    #: Where answers are kept for batches that reuse them; None: in the data folder.
    answers: Path | None = None
    #: Further names of the engine's models, each with the model it stands for.
    aliases: Mapping[str, str] = {}
    #: Seconds for which a command waits for its engine to start; a server waits for as long as it takes.
    start_wait: float = 1800.0
    webhooks: WebhookSettings = WebhookSettings()
    #: None: no spans, whatever the environment says.
    spans: SpanSettings | None = None


class BatchHost:
    """``start``, then use ``storage``, ``batches``, ``dispatcher`` and ``supervisor``; ``stop`` hands work back."""

    storage: Storage
    dispatcher: Dispatcher
    supervisor: Supervisor
    batches: BatchService
    webhooks: WebhookService
    notifier: Notifier

    def __init__(self, settings: HostSettings, engine: Engine | None = None) -> None:
        """``engine``: one that is up, and that its owner stops after this; None for one of its own, as in
        ``settings``. Raises UserError for settings that are wrong whatever there is."""
        self.settings = settings
        self._opened = OpenStorage(settings.storage)
        self._owns_engine = engine is None
        self._engine = engine or create_engine(settings.engine)
        self._own_webhook, self.webhook_hosts = settings.webhooks.own(), settings.webhooks.allowed()
        self._tasks: list[asyncio.Task[None]] = []
        self.throughput = Throughput()
        self._spans = _spans(settings.spans)

    async def start(self) -> None:
        """Raises UserError for what a person can mend."""
        self.storage = await self._opened.start()
        try:
            await self._start_engine()
        except BaseException:
            await self._opened.stop()
            raise
        settings = self.settings
        self.dispatcher = Dispatcher(
            self._engine, window=settings.concurrency, timeout=settings.request_timeout, aliases=settings.aliases
        )
        answers = AnswerStore(settings.answers or settings.storage.data / "answers.db")
        scratch = settings.storage.data / "scratch"
        # This process is alone here: what there is was left behind by a kill.
        shutil.rmtree(scratch, ignore_errors=True)
        self.supervisor = Supervisor(self.storage, self.dispatcher, answers, scratch, settings.limits, self._spans)
        self.batches = BatchService(
            self.storage, self.supervisor, lambda: self.supervisor.heartbeat.served, self.webhook_hosts
        )
        self.notifier = Notifier(
            self.storage.metadata.deliveries,
            Sender(self.webhook_hosts),
            self._own_webhook,
            self.storage.metadata.shared,
        )
        self.webhooks = WebhookService(self.storage.metadata.deliveries, self.notifier)
        try:
            # Before anything is written: what nobody who is there writes is freed.
            await self.supervisor.heartbeat.announce()
        except BaseException:
            await self._stop_engine()
            await self._opened.stop()
            raise
        self.storage.metadata.listen(self.supervisor.hear)
        self._tasks = [
            supervised("supervisor", self.supervisor.run),
            supervised("webhooks", self.notifier.run),
            supervised("throughput", self._measure),
            supervised("housekeeping", lambda: keep_house(self.storage, answers, settings.keep_ended_batches)),
        ]

    async def _start_engine(self) -> None:
        if self._owns_engine:
            await self._engine.start()
        try:
            check_aliases(self.settings.aliases, self._engine.models)
        except UserError:
            await self._stop_engine()
            raise

    async def _stop_engine(self) -> None:
        if self._owns_engine:
            await self._engine.stop()

    async def _measure(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(PERIOD)
            now = time.monotonic()
            self.throughput.note(time.time(), now - before, *self.supervisor.take_done())
            before = now

    @property
    def waiting_for(self) -> str:
        """What ``start`` waits for, in words."""
        return start_waits_for(self._engine)

    @property
    def status_line(self) -> str:
        """What it is doing, in one sentence."""
        if not self._tasks:
            return f"Waiting for {self.waiting_for}."
        return self.supervisor.status_line

    async def stop(self) -> None:
        """Finish or hand back what is in flight, store it, and close everything."""
        await self.supervisor.stop(self.settings.stop_grace)
        await self.notifier.stop(min(self.settings.stop_grace, _NOTIFIER_GRACE))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            # Else it is seen from the heartbeat, a little later.
            await self.supervisor.heartbeat.leave()
        if self._spans is not None:
            await self._spans.close()
        await self._stop_engine()
        await self._opened.stop()


def _spans(settings: SpanSettings | None) -> Spans | None:
    """Raises UserError where they are asked for and cannot be made. Variables of the environment, which may be meant
    for other programs, do not stop a server."""
    if settings is None or not wanted(settings, os.environ):
        return None
    try:
        return Spans(settings, os.environ)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"Spans cannot be sent ({error}): check OTEL_..."
        if settings.url is not None:
            raise UserError(reason) from error
        log.warning("no spans are sent", reason=reason)
        return None
