"""Suspects: which of the requests that a server was answering when it crashed is to blame.

A crash cuts off every request that the server was answering, and any of them may have caused it. So none is blamed for
it. They are asked again one at a time, alone, the one that was sent last first: most requests that kill a server do so
when it begins with them. A request that the server crashes under while it is alone is the culprit. The others of that
crash are cleared then and go back among the rest, so that a crash usually costs a few requests asked alone and not a
whole window of them. A culprit stays alone until its attempts are used up.

Whoever is on trial stays so until it is answered, given up or cleared, and no other suspect has its turn meanwhile. A
server may die of a request only after it has broken it off: then it dies under the next one. That can happen to a
suspect once, after the culprit before it, but not at each of its attempts.

Of an engine that isolates, a suspect is alone at a server of its own while the others go on. Then suspects of different
crashes wait for each other only as long as each is asked, and it is the engine that gives none of them a server which
the one before may have left to die (``engines/ray/trials.py``).

Every crash in company leads to a culprit, or to answers for all of its suspects; so it ends.
"""

from __future__ import annotations

import asyncio
import itertools


class Suspect:
    """A request that a crash cut off. ``leave`` when it is answered or given up, or nobody after it gets a turn."""

    def __init__(self, crash: _Crash, sent: int, trial: asyncio.Lock | None) -> None:
        self._crash = crash
        self._trial = trial
        self._on_trial = False
        self.sent = sent
        self.decided = asyncio.Event()
        self.convicted = False

    @property
    def cleared(self) -> bool:
        """Whether another request was found to have caused the crash."""
        return self._crash.solved and not self.convicted

    async def turn(self) -> None:
        """Wait to be asked alone, or to be cleared."""
        if not self._on_trial:
            self._crash.try_next()
            await self.decided.wait()
            if not self.cleared:
                self._on_trial = self._trial is None or await self._trial.acquire()

    def convict(self) -> bool:
        """The server crashed under it alone; whether that is the first time."""
        first, self.convicted = not self.convicted, True
        self._crash.solve()
        return first

    def leave(self) -> None:
        self._crash.leave(self)
        if self._on_trial and self._trial is not None:
            self._trial.release()
        self._on_trial = False


class _Crash:
    """One crash of one server; ``at`` is on the same clock as ``Suspect.sent``."""

    def __init__(self, at: int, trial: asyncio.Lock | None) -> None:
        self.at = at
        self._trial = trial
        self.solved = False
        self._suspects: set[Suspect] = set()
        self._on_trial: Suspect | None = None

    def add(self, sent: int) -> Suspect:
        suspect = Suspect(self, sent, self._trial)
        if self.solved:
            suspect.decided.set()
        else:
            self._suspects.add(suspect)
        return suspect

    def try_next(self) -> None:
        if self._on_trial is None and self._suspects:
            self._on_trial = next_on_trial(self._suspects)
            self._on_trial.decided.set()

    def solve(self) -> None:
        self.solved = True
        for suspect in self._suspects:
            suspect.decided.set()
        self._suspects.clear()

    def leave(self, suspect: Suspect) -> None:
        self._suspects.discard(suspect)
        if self._on_trial is suspect:
            self._on_trial = None
            self.try_next()


def next_on_trial(suspects: set[Suspect]) -> Suspect:
    return max(suspects, key=lambda suspect: suspect.sent)


class Suspects:
    """The crashes of an engine's servers. Times are numbers of a counter that every sending and crash moves on.
    ``isolated``: whoever is on trial has a server to itself."""

    def __init__(self, isolated: bool = False) -> None:
        self._clock = itertools.count()
        self._last: dict[str, _Crash] = {}
        self._trial = None if isolated else asyncio.Lock()

    def sent(self) -> int:
        """When a request is sent: now."""
        return next(self._clock)

    def crashed(self, server: str, sent: int) -> Suspect:
        """``server`` crashed while it was answering a request; all that it was answering at the time share a crash."""
        crash = self._last.get(server)
        if crash is None or sent > crash.at:
            crash = self._last[server] = _Crash(next(self._clock), self._trial)
        return crash.add(sent)
