"""One replica, kept by the driver: its actor found or made, its engine started, its answers taken; again and again."""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from gristmill import __version__
from gristmill.engines.ray import cluster
from gristmill.engines.ray.actor import END_SECONDS, Hello
from gristmill.engines.ray.frames import Answers, Connect, FromDriver, Joined, Left, Send, Trouble, Waiting
from gristmill.engines.ray.messages import ReplicaFacts

#: Seconds between two tries, doubled for each without success.
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 15.0
#: How often an actor whose engine is starting is asked whether it is there.
_ASK_SECONDS = 2.0


class Unusable(Exception):
    """The message is a sentence. ``final``: trying again now would end in the same way."""

    def __init__(self, sentence: str, final: bool) -> None:
        super().__init__(sentence)
        self.final = final


class Keeper:
    """Tells what happens by ``emit``; ``run`` does not return. ``send`` and ``leave`` may be called at any time."""

    def __init__(self, connect: Connect, name: str, emit: Callable[[FromDriver], None]) -> None:
        self._connect = connect
        self._name = name
        self._emit = emit
        self._actor: Any = None
        #: Whether the actor has a place on the cluster, so that it can answer.
        self._placed = False
        self._session = ""
        #: Whether what was to be sent in this session came too late.
        self._late = False
        #: Since when Ray has failed at each try to reach the replica, on the monotonic clock.
        self.unreachable_since: float | None = None

    async def run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                self._actor = actor = await asyncio.to_thread(cluster.find_or_make, self._connect, self._name)
                facts = await self._start(actor)
                self._session, self._late = secrets.token_hex(8), False
                session = self._session
                await self._call(actor.open.remote(self._connect.client, session, self._connect.keep))
            except asyncio.CancelledError:
                raise
            except Unusable as error:
                self._emit(Trouble(self._name, str(error), error.final))
            except Exception as error:
                traceback.print_exception(error, limit=-3)
                self._emit(Trouble(self._name, cluster.sentence_of(error), False))
                self.unreachable_since = self.unreachable_since or time.monotonic()
            else:
                pause = _FIRST_PAUSE
                self._emit(Joined(self._name, session, facts))
                why, died = await self._take_answers(actor, session)
                self._session = ""
                self._emit(Left(self._name, session, why, died and self._connect.replica.computes))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def send(self, frame: Send) -> None:
        if frame.session != self._session or self._late:
            return
        if time.monotonic() - frame.since > self._connect.patience.stale:
            # Our own process has hung, and somebody else may have its batches by now.
            self._late = True
            return
        # Whether it arrives, the call that takes answers shows.
        self._actor.submit.remote(self._connect.client, frame.session, frame.group)

    async def leave(self) -> None:
        """Ends the actor, unless it is to be kept or somebody else uses it."""
        actor, self._session = self._actor, ""
        if actor is None:
            return
        try:
            async with asyncio.timeout(END_SECONDS if self._placed else 0):
                if not await actor.leave.remote(self._connect.client) or self._connect.keep:
                    return
                await actor.end.remote()
        except Exception as error:
            traceback.print_exception(error, limit=-3)
            if self._connect.keep and self._placed:
                return
        await asyncio.to_thread(cluster.end, actor)

    async def _start(self, actor: Any) -> ReplicaFacts:
        self._emit(Waiting(f"a place on the Ray cluster for {cluster.needs(self._connect)}"))
        try:
            hello = msgspec.json.decode(
                await asyncio.wait_for(_awaited(actor.hello.remote()), self._connect.placement_wait), type=Hello
            )
        except TimeoutError:
            raise Unusable(await asyncio.to_thread(cluster.no_place, self._connect), True) from None
        self._placed = True
        self.unreachable_since = None
        if hello.version != __version__:
            raise Unusable(
                f"The Ray cluster's nodes have Gristmill {hello.version}, and this is {__version__}: install the same "
                "version on all of them.",
                True,
            )
        self._emit(Waiting("the replicas' engine to start"))
        starting = asyncio.ensure_future(_awaited(actor.start.remote()))
        while not (await asyncio.wait({starting}, timeout=_ASK_SECONDS))[0]:
            await self._call(actor.hello.remote(), self._connect.patience.starting)
        facts, reason = await starting
        if reason:
            raise Unusable(f"A replica's {self._connect.replica.engine} engine cannot start: {reason}", True)
        return msgspec.msgpack.decode(facts, type=ReplicaFacts)

    async def _take_answers(self, actor: Any, session: str) -> tuple[str, bool]:
        """Until the replica answers no more; why, and whether it died."""
        while True:
            try:
                group = await self._call(actor.take.remote(self._connect.client, session))
            except Unusable as error:
                return str(error), True
            except Exception as error:
                traceback.print_exception(error, limit=-3)
                return cluster.sentence_of(error), cluster.is_gone(error)
            if group:
                self._emit(Answers(self._name, session, group))
            if self._late:
                return "What was to be sent to it came too late: this machine has hung.", False

    async def _call(self, reference: Any, patience: float | None = None) -> Any:
        """What the actor answers. One that does not answer for too long is ended, and started again by Ray."""
        seconds = self._connect.patience.silence if patience is None else patience
        try:
            return await asyncio.wait_for(_awaited(reference), seconds)
        except TimeoutError:
            await asyncio.to_thread(cluster.restart, self._actor)
            raise Unusable(
                f"The replica did not answer for {seconds:g} seconds, and is started again.", False
            ) from None


async def _awaited(reference: Any) -> Any:
    return await reference
