"""One batch in this process, without a server: kept in a folder until it is delivered, so that running it again resumes
it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.batches.host import BatchHost, HostSettings
from gristmill.batches.job_folder import NOTE, write_whole
from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.waiting import LOOK_SECONDS, Tell, silently, while_told
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import Engine
from gristmill.inference.endpoints import check_offered
from gristmill.storage.private import private_folder
from gristmill.storage.records import FileRecord, file_blob
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.webhooks import WebhookDelivery

#: A run has no deadline; this is the longest window there is.
_WINDOW = "366d"
_INPUT_ID = "file-input"
#: How long an ended run waits for its webhook to be taken.
_TELL_SECONDS = 60.0
#: The batch as it ended: running it again is only delivering its files.
_ENDED = "ended.json"


class Job(NamedTuple):
    """``source`` is the input. ``identity`` names what the job was started with, part by part: running it again with
    something else is not resuming it."""

    source: Path
    endpoint: str
    identity: dict[str, Any]
    defaults: dict[str, Any] | None = None
    reuse_answers: bool = False


class LocalRun:
    """``check`` before anything is loaded, ``run`` until the batch has ended or a signal comes; then ``deliver`` its
    files."""

    def __init__(self, state: Path, job: Job) -> None:
        self.state = state
        self.job = job
        #: How the end was told, once it has ended, where the settings have a webhook.
        self.told: WebhookDelivery | None = None

    def begun(self) -> bool:
        return (self.state / NOTE).exists()

    def check(self) -> None:
        """Raises UserError where the folder belongs to another job."""
        if not self.begun():
            return
        before = msgspec.json.decode((self.state / NOTE).read_bytes(), type=dict[str, Any])
        now = msgspec.to_builtins(self.job.identity)
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            raise UserError(
                f"The {' and '.join(changed)} changed since this run was started: undo that to resume it, or delete "
                f"{self.state} to start afresh."
            )

    def ended(self) -> Batch | None:
        """The batch, if an earlier run has brought it to its end."""
        try:
            return msgspec.json.decode((self.state / _ENDED).read_bytes(), type=Batch)
        except FileNotFoundError:
            return None

    async def run(
        self,
        settings: HostSettings,
        look: Callable[[Batch], None],
        starting: Tell = silently,
        stop_on: Sequence[signal.Signals] = (),
        engine: Engine | None = None,
    ) -> Batch:
        """``look`` is called with the batch several times a second, and before that, while the engine starts,
        ``starting`` with what it waits for. ``stop_on``: the signals that stop the run, which only a command may take;
        cancelling stops it as well. ``engine`` as for ``BatchHost``. Raises UserError where the engine cannot start, or
        takes too long."""
        host = BatchHost(settings, engine)
        stopped = asyncio.Event()
        # Until the engine has started, Ctrl-C simply ends the command: a model may take minutes to load.
        await while_told(host.start(), lambda: host.waiting_for, starting, settings.start_wait)
        loop = asyncio.get_running_loop()
        for number in stop_on:
            loop.add_signal_handler(number, stopped.set)
        try:
            batch = await self._find_or_create(host)
            while not is_terminal(batch.status) and not stopped.is_set():
                look(batch)
                await _pause(stopped, LOOK_SECONDS)
                batch = await host.batches.get(batch.id)
            if is_terminal(batch.status) and settings.webhooks.url is not None:
                self.told = await _told(host, batch.id, stopped)
        finally:
            await host.stop()
            for number in stop_on:
                loop.remove_signal_handler(number)
        if is_terminal(batch.status):
            write_whole(self.state / _ENDED, msgspec.json.encode(batch))
        return batch

    def deliver(self, file_id: str | None, target: Path, even_if_empty: bool) -> None:
        """Move a result file into place; again and again, if need be, after a kill."""
        if file_id is not None:
            source = self.path_of(file_id)
            if source.exists():
                source.replace(target)
        elif even_if_empty:
            target.write_bytes(b"")
        else:
            target.unlink(missing_ok=True)

    def path_of(self, file_id: str) -> Path:
        return self.state / "blobs" / file_blob(file_id)

    async def _find_or_create(self, host: BatchHost) -> Batch:
        page = await host.batches.page(None, 1)
        if page.data:
            return page.data[0]
        _check_endpoint(host, self.job.endpoint)
        # Only now: an engine that could not start has begun nothing.
        write_whole(self.state / NOTE, msgspec.json.encode(self.job.identity))
        source = self.job.source
        self._link_input()
        if await host.storage.metadata.files.get(_INPUT_ID) is None:
            record = FileRecord(_INPUT_ID, source.stat().st_size, int(time.time()), source.name, "batch")
            await host.storage.metadata.files.add(record)
        job = self.job
        request = CreateBatchRequest(
            _INPUT_ID, job.endpoint, _WINDOW, defaults=job.defaults, reuse_answers=job.reuse_answers
        )
        return await host.batches.create(request)

    def _link_input(self) -> None:
        """The input is read where it is, not copied."""
        blob = self.path_of(_INPUT_ID)
        private_folder(blob.parent)
        blob.unlink(missing_ok=True)
        blob.symlink_to(self.job.source.resolve())


async def _told(host: BatchHost, batch_id: str, stopped: asyncio.Event) -> WebhookDelivery | None:
    """The delivery of the batch's end, when it was delivered or a while has passed: what is not delivered then never
    is, because nothing stays of a run."""
    give_up = time.monotonic() + _TELL_SECONDS
    while True:
        page = await host.webhooks.page(None, 1, batch_id=batch_id)
        found = page.data[0] if page.data else None
        if found is None or found.status != "pending" or stopped.is_set() or time.monotonic() > give_up:
            return found
        await _pause(stopped, LOOK_SECONDS)


def _check_endpoint(host: BatchHost, endpoint: str) -> None:
    """Raises UserError where the engine does not answer what the input asks for."""
    try:
        check_offered(endpoint, host.dispatcher.engine.name, host.dispatcher.endpoints)
    except EngineError as error:
        advice = "Choose another engine or model, or another url for the lines of the input."
        raise UserError(f"{error.message} {advice}") from None


async def _pause(stopped: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopped.wait()
    except TimeoutError:
        pass
