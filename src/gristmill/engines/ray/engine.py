"""A pool of replicas on a Ray cluster, as the rest of Gristmill sees it: one engine."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Any

import msgspec

from gristmill.engines.errors import unknown_model
from gristmill.engines.parameters import check_parameters
from gristmill.engines.prompt_parts import prompt_parts, shared_prefix
from gristmill.engines.protocol import (
    AnyAnswer,
    AnyRequest,
    Capabilities,
    Completion,
    EmbeddingRequest,
    Embeddings,
    Engine,
    ForwardedAnswer,
    ForwardRequest,
    LabelRequest,
    LabelScores,
    OnDelta,
    OnEvent,
    Request,
)
from gristmill.engines.ray import messages
from gristmill.engines.ray.driver_process import DriverProcess
from gristmill.engines.ray.frames import (
    BEAT_SECONDS,
    Alive,
    Answers,
    Connect,
    FromDriver,
    Joined,
    Left,
    Patience,
    Send,
    Trouble,
    Waiting,
)
from gristmill.engines.ray.messages import AskFingerprint
from gristmill.engines.ray.options import Bounds, RayOptions, ReplicaSettings
from gristmill.engines.ray.pool import Pool
from gristmill.engines.ray.trials import most_trials
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import ENGINE_RESTARTS
from gristmill.user_error import NotNow

log = get_logger(__name__)

#: Seconds before a driver that has ended is started again; doubled for each that ended before a replica was there.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class RayEngine:
    """``like``: an engine as each replica will have one, made here and never started, to be asked what it can."""

    name = "ray"

    def __init__(
        self, options: RayOptions, replica: ReplicaSettings, like: Engine, patience: Patience | None = None
    ) -> None:
        self._options = options
        self._bounds = Bounds.parse(options.replicas)
        self._connect = Connect(
            client=f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}",
            address=options.ray_address,
            replica=replica,
            replicas=self._bounds.most,
            keep=options.keep_replicas,
            placement_wait=options.placement_wait,
            patience=patience or Patience(),
        )
        self._pool = Pool(self._send, self._connect.patience.stale)
        self._driver: DriverProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._started: asyncio.Future[None] | None = None
        #: Since the driver's last sign; None until its first.
        self._quiet_beats: int | None = None
        self._waiting_for: str | None = None
        #: The last trouble, and the replicas that will not come to be without a change.
        self._said = ""
        self._hopeless: set[str] = set()
        self.models = like.models
        self._of_one = like.capabilities
        self.capabilities = self._of_all()

    @property
    def replicas(self) -> frozenset[str]:
        """Those that answer now, by name."""
        return frozenset(self._pool.members)

    @property
    def down_reason(self) -> str | None:
        return self._pool.down_reason

    @property
    def waiting_for(self) -> str | None:
        return None if self._pool.members else self._waiting_for

    async def start(self) -> None:
        """Returns when as many replicas are ready as are needed to start. Raises UserError."""
        self._started = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._beat())]
        try:
            await self._started
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        driver, self._driver = self._driver, None
        self._pool.lost("The ray engine has been stopped.")
        if driver is not None:
            await driver.stop()

    async def fingerprint(self) -> str | None:
        found: str | None = await self._pool.ask(AskFingerprint)
        return found

    async def complete(
        self, request: Request, on_delta: OnDelta | None = None, *, interactive: bool = False
    ) -> Completion:
        self._check_model(request.model)
        check_parameters(request, self.capabilities, self._connect.replica.engine)
        answer: Completion = await self._ask(request, on_delta, interactive)
        return answer

    async def score(self, request: LabelRequest, *, interactive: bool = False) -> LabelScores:
        self._check_model(request.model)
        answer: LabelScores = await self._ask(request, None, interactive)
        return answer

    async def embed(self, request: EmbeddingRequest, *, interactive: bool = False) -> Embeddings:
        self._check_model(request.model)
        answer: Embeddings = await self._ask(request, None, interactive)
        return answer

    async def ask_alone(self, request: AnyRequest) -> AnyAnswer:
        """By a replica of its own, while the others go on."""
        if not isinstance(request, ForwardRequest):
            self._check_model(request.model)
        if isinstance(request, Request):
            check_parameters(request, self.capabilities, self._connect.replica.engine)
        answer: AnyAnswer = await self._ask(request, None, False, alone=True)
        return answer

    def _check_model(self, model: str) -> None:
        if model not in self.models:
            raise unknown_model(model, self.models)

    async def _ask(
        self, request: AnyRequest, listen: OnDelta | OnEvent | None, interactive: bool, alone: bool = False
    ) -> Any:
        prefix, stream = shared_prefix(request.model, prompt_parts(request)), listen is not None
        return await self._pool.ask(
            lambda number: messages.question(number, request, stream, interactive),
            prefix, interactive, listen, alone=alone,
        )  # fmt: skip

    def _send(self, frame: Send) -> None:
        if self._driver is not None:
            self._driver.send(frame)

    async def _beat(self) -> None:
        """Counted, not timed: where this process was stopped, the driver need not have been."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._pool.beat()
            if self._quiet_beats is not None:
                self._quiet_beats += 1
                if self._quiet_beats * BEAT_SECONDS > self._connect.patience.silence and self._driver is not None:
                    log.error("Ray's driver hangs", beats=self._quiet_beats)
                    self._quiet_beats = None
                    self._driver.kill()

    async def _keep(self) -> None:
        """A driver at any time; one that has ended is replaced."""
        pause = _FIRST_PAUSE
        while True:
            self._quiet_beats = None
            try:
                self._driver = driver = await DriverProcess.start(self._connect, self._take)
                how = await driver.wait()
            except OSError as error:
                # Such as a machine that has no room for a process more.
                how = f"it cannot be started: {error.strerror}"
            pause = _FIRST_PAUSE if self._pool.members else min(2 * pause, _LONGEST_PAUSE)
            why = f"Ray's client process has ended ({how.partition('; it printed')[0]}), and is started again."
            log.error("Ray's driver ended", because=how.partition("; it printed")[0], content=how)
            had = bool(self._pool.members)
            self._pool.lost(why if had else self._pool.down)
            if self._started is not None and not self._started.done() and not had:
                self._started.set_exception(NotNow(self._said or f"Ray's client process ended at its start: {how}."))
                return
            ENGINE_RESTARTS.inc()
            await asyncio.sleep(pause)

    def _take(self, frame: FromDriver) -> None:
        if self._quiet_beats is not None or isinstance(frame, Alive):
            self._quiet_beats = 0
        match frame:
            case Answers():
                self._pool.answered(frame)
            case Joined():
                self._hopeless.discard(frame.replica)
                self._pool.joined(frame)
                self.models, self._of_one = frame.facts.models, frame.facts.capabilities
                self.capabilities = self._of_all()
                log.info("a replica is ready", replica=frame.replica, node=frame.facts.node)
                enough = len(self._pool.members) >= self._bounds.least
                if self._started is not None and not self._started.done() and enough:
                    self._started.set_result(None)
            case Left():
                log.warning("a replica was lost", replica=frame.replica, reason=frame.why)
                self._pool.left(frame)
                self.capabilities = self._of_all()
            case Waiting():
                self._waiting_for = frame.what
            case Trouble():
                self._note_trouble(frame)

    def _of_all(self) -> Capabilities:
        """What they can do together; how many rows can be asked alone goes with those that are there."""
        one, most = self._of_one, self._bounds.most
        return msgspec.structs.replace(
            one,
            slots=most * one.slots,
            interactive_slots=most * one.interactive_slots,
            alone_slots=most_trials(len(self._pool.members)) if self._options.isolates else 0,
        )

    def _note_trouble(self, trouble: Trouble) -> None:
        if self._started is not None and self._started.done():
            log.warning("a replica is not there", replica=trouble.replica, reason=trouble.sentence)
        if not self._pool.members:
            self._pool.down = trouble.sentence
        self._said = trouble.sentence
        if trouble.final:
            self._hopeless.add(trouble.replica)
        too_few = "" in self._hopeless or self._bounds.most - len(self._hopeless) < self._bounds.least
        if too_few and self._started is not None and not self._started.done():
            self._started.set_exception(NotNow(trouble.sentence))


class PassingRayEngine(RayEngine):
    """Of replicas that pass requests on to a server as they came."""

    async def forward(
        self, request: ForwardRequest, on_event: OnEvent | None = None, *, interactive: bool = False
    ) -> ForwardedAnswer:
        answer: ForwardedAnswer = await self._ask(request, on_event, interactive)
        return answer
