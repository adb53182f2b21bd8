"""The replicas as our process sees them: who is there, what each is answering, and the requests that wait for one."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import msgspec

from gristmill.engines.answer_frames import Decoded
from gristmill.engines.errors import EngineError, ErrorKind, crashed, interrupted, unavailable
from gristmill.engines.health import ServerHealth, after_failure
from gristmill.engines.isolation import NotYet
from gristmill.engines.ray import messages
from gristmill.engines.ray.frames import Answers, Joined, Left, Send
from gristmill.engines.ray.member import Member
from gristmill.engines.ray.messages import Event, FromReplica, NotBegun, ToReplica
from gristmill.engines.ray.place_queue import PlaceQueue
from gristmill.engines.ray.placement import Homes, Load, Loads, choose
from gristmill.engines.ray.pool_request import PoolRequest, encoded
from gristmill.engines.ray.trial_places import TrialPlaces
from gristmill.engines.ray.trials import longest_wait
from gristmill.engines.request_frames import Cancel
from gristmill.telemetry.log import get_logger

log = get_logger(__name__)

_TAKEN = "Every replica is away, or kept free for a row that another server asks alone."
_HUNG = "The machine has hung for a while."


class Pool:
    """``ask`` from any number of tasks; what the driver says goes to ``joined``, ``left``, ``answered`` and ``lost``,
    and ``beat`` is called every second. ``send`` hands a frame to the driver. After ``stale`` seconds without a beat
    this process has hung."""

    def __init__(self, send: Callable[[Send], None], stale: float) -> None:
        self._send = send
        self._stale = stale
        self._beat = time.monotonic()
        #: When it was last found to have hung.
        self._hung_at = 0.0
        self._ids = itertools.count(1)
        self._homes = Homes()
        self._loads = Loads()
        #: Those that found no replica free.
        self._queue = PlaceQueue(longest_wait(stale))
        #: Where something is asked alone; nothing else is until that is answered.
        self._trials = TrialPlaces()
        self.members: dict[str, Member] = {}
        #: Why no replica can be asked, while none can.
        self.down = "The ray engine has not started."

    @property
    def down_reason(self) -> str | None:
        return self.down if all(member.rests for member in self.members.values()) else None

    async def ask(
        self,
        make: Callable[[int], ToReplica],
        prefix: int | None = None,
        interactive: bool = False,
        listen: Callable[[Any], None] | None = None,
        *,
        alone: bool = False,
    ) -> Any:
        """What a replica answers to the message; ``alone``: while it answers nothing else. Raises EngineError:
        interrupted where the replica is lost meanwhile, unavailable where there is none; and NotYet of what is to be
        alone, where a second or so has passed."""
        number = next(self._ids)
        request = PoolRequest(number, encoded(make(number), alone), prefix, interactive, alone, listen)
        self._place_or_queue(request)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._cancel(request)
            raise

    def beat(self) -> None:
        self._note_hang()
        self._beat = time.monotonic()

    def _note_hang(self) -> None:
        """What waits for a place was let in before it: whoever asked has to see whether it is still his to ask."""
        now = time.monotonic()
        if now - self._beat > self._stale:
            self._hung_at = now
            self._queue.fail(_HUNG)

    def joined(self, frame: Joined) -> None:
        self.members[frame.replica] = member = Member(frame.replica, frame.session, frame.facts, self._send)
        self._note_load(member)
        self._place_queued()

    def left(self, frame: Left) -> None:
        member = self.members.get(frame.replica)
        if member is not None and member.session == frame.session:
            self._lose(member, frame.why, member.name if frame.died else None)
            # Another may be on trial now.
            self._place_queued()

    def lost(self, why: str) -> None:
        """The driver has ended, and with it every session."""
        for member in list(self.members.values()):
            self._lose(member, why, None)
        self._queue.fail(why)

    def answered(self, frame: Answers) -> None:
        member = self.members.get(frame.replica)
        if member is None or member.session != frame.session:
            return
        for number, data in messages.decode_group(frame.group):
            if (request := member.in_flight.get(number)) is not None:
                self._take(member, request, data)
        self._place_queued()

    def _take(self, member: Member, request: PoolRequest, data: bytes) -> None:
        future = request.future
        try:
            message = messages.decode_from_replica(data)
            if isinstance(message, Decoded | Event):
                self._tell(request, message)
                return
            if isinstance(message, NotBegun):
                self._not_begun(member, request, message.taken)
                return
            answer = messages.answer_of(message)
        except EngineError as error:
            if error.kind is ErrorKind.UNAVAILABLE:
                self._take_away(member, request, error)
                return
            if error.crashed is not None:
                error.crashed = f"{error.crashed} of {member.name}"
                member.broke_off = time.monotonic()
            outcome: Exception = error
        except msgspec.DecodeError as error:
            outcome = interrupted(f"A replica's answer cannot be read: {error}.")
        except Exception as error:
            # The caller's own fault: hand it back to the caller, not to the reader of everybody's frames.
            outcome = error
        else:
            self._end(member, request)
            if not future.done():
                future.set_result(answer)
            return
        # To refuse a request, an engine must be there; one that breaks off each proves nothing.
        refused = isinstance(outcome, EngineError) and outcome.kind is ErrorKind.INVALID_REQUEST
        self._end(member, request, answered=refused)
        if not future.done():
            future.set_exception(outcome)

    def _take_away(self, member: Member, request: PoolRequest, error: EngineError) -> None:
        """Its engine is away: it rests, and the others answer what it had. But not what its engine may be away for."""
        member.broke_off = time.monotonic()
        before, member.health = member.health, after_failure(member.health, True, member.broke_off)
        if member.health.rest_until != before.rest_until:
            self._rest(member)
            if before.trips == 0:
                log.warning("a replica's engine is away", replica=member.name, content=error.message)
        self._end(member, request, answered=False)
        if request.future.done():
            return
        self.down = error.message
        if error.crashed is not None:
            error.crashed = f"{error.crashed} of {member.name}"
            if self.down_reason is None:
                # Others answer, so that nobody else is to wait for it.
                error = crashed(error.crashed, error.message)
        if error.crashed is not None or request.heard:
            request.future.set_exception(error)
        else:
            self._place_again(request)
        if self.down_reason is not None:
            self._queue.fail(self.down)

    def _not_begun(self, member: Member, request: PoolRequest, taken: bool) -> None:
        """Its engine is not away. ``taken``: others answer what it was given meanwhile."""
        self._end(member, request, answered=False)
        if request.alone and not taken:
            self._trials.keep(member.name, self._stale, self._free)
            self._note_load(member)
            request.future.set_exception(NotYet())
            return
        if taken:
            self.down = _TAKEN
            if not member.rests:
                member.rest_while_taken()
                self._rest(member)
        self._place_again(request)
        if self.down_reason is not None:
            self._queue.fail(self.down)

    def _free(self, name: str) -> None:
        self._note_load(self.members[name])
        self._place_queued()

    def _rest(self, member: Member) -> None:
        self._loads.drop(member.name)
        self._wake(member)

    def _wake(self, member: Member) -> None:
        """When it has rested; a timer may be early."""
        if member.rests:
            pause = member.health.rest_until - time.monotonic()
            asyncio.get_running_loop().call_later(pause, self._wake, member)
        elif self.members.get(member.name) is member:
            self._note_load(member)
            self._place_queued()

    def _end(self, member: Member, request: PoolRequest, answered: bool = True) -> None:
        del member.in_flight[request.number]
        if request.alone:
            self._trials.end(member.name)
        if answered:
            member.broke_off = 0.0
            if member.health.failures:
                member.health = ServerHealth()
        self._note_load(member)

    def _note_load(self, member: Member) -> None:
        if member.name in self._trials:
            self._loads.drop(member.name)
        elif not member.rests:
            self._loads.set(member.name, Load(len(member.in_flight), member.slots))

    def _tell(self, request: PoolRequest, message: FromReplica) -> None:
        if request.listen is not None and not request.future.done():
            request.heard = True
            request.listen(message.event if isinstance(message, Event) else message.delta)  # type: ignore[union-attr]

    def _place_or_queue(self, request: PoolRequest) -> None:
        if (reason := self.down_reason) is not None:
            request.future.set_exception(unavailable(reason))
        elif not self._place(request):
            self._queue.add(request)

    def _place_again(self, request: PoolRequest) -> None:
        """What no replica has begun with; after a hang whoever asked has to see whether it is still his to ask."""
        request.replica = None
        self._note_hang()
        if request.since <= self._hung_at:
            request.future.set_exception(unavailable(_HUNG))
        else:
            self._place_or_queue(request)

    def _place(self, request: PoolRequest) -> bool:
        """Send it to a replica; False where none is free."""
        homes = self._homes.of(request.prefix)
        chosen = self._trials.choose(self.members) if request.alone else choose(self._loads, homes)
        if chosen is None:
            return False
        if request.alone:
            self._trials.begin(chosen)
        self._homes.add(request.prefix, chosen)
        member = self.members[chosen]
        request.replica, request.since = member, time.monotonic()
        member.in_flight[request.number] = request
        self._note_load(member)
        member.write(request.number, request.message, request.interactive)
        return True

    def _place_queued(self) -> None:
        self._note_hang()
        self._queue.place(self._place)

    def _cancel(self, request: PoolRequest) -> None:
        member = request.replica
        if member is None:
            self._queue.forget(request)
        elif request.number in member.in_flight:
            self._end(member, request, answered=False)
            number, message = messages.encode(Cancel(request.number))
            member.write(number, message, at_once=False)
            self._place_queued()

    def _lose(self, member: Member, why: str, lost: str | None) -> None:
        """``lost``: as of the error that its requests get."""
        self.members.pop(member.name, None)
        self._trials.end(member.name)
        self._loads.drop(member.name)
        self._homes.forget(member.name)
        # It has not begun with these.
        unsent = member.take_unsent()
        requests, member.in_flight = member.in_flight, {}
        self.down = why
        for request in requests.values():
            if request.future.done():
                continue
            if request.number in unsent:
                self._place_again(request)
            else:
                sentence = f"The replica was lost while it was answering. {why}"
                request.future.set_exception(EngineError(ErrorKind.INTERRUPTED, sentence, status=500, lost=lost))
        if self.down_reason is not None:
            self._queue.fail(why)
