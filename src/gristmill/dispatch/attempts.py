"""A row's attempts so far, and what its next failure means: try again, alone or not, or give it up."""

from __future__ import annotations

import random

from gristmill.dispatch.retry import Retry, RetryPolicy, decide
from gristmill.dispatch.stop import Stop
from gristmill.dispatch.suspects import Suspect, Suspects
from gristmill.engines.errors import EngineError, ErrorKind


class Attempts:
    """``failures`` are the row's own, ``pauses`` nobody's. ``leave`` when it is answered or given up."""

    def __init__(self, suspects: Suspects, policy: RetryPolicy) -> None:
        self.failures = 0
        self.pauses = 0
        self._suspects = suspects
        self._policy = policy
        #: When it was last sent, on the clock of ``Suspects``.
        self._sent = 0
        #: How many answers the engine had given when the row last found it away.
        self._away_at: int | None = None
        #: How often a server was lost with it.
        self._losses = 0
        self._suspect: Suspect | None = None

    @property
    def alone(self) -> bool:
        """Whether the row is to be asked with nothing else in flight, or at a server that has nothing else."""
        return self._suspect is not None

    async def turn(self, stop: Stop) -> None:
        """Wait until the row may go for a place, should it be a suspect."""
        if self._suspect is not None:
            await stop.unless(self._suspect.turn())
            if self._suspect.cleared:
                self._suspect = None

    def begin(self) -> None:
        """It is being sent."""
        self._sent = self._suspects.sent()

    def failed(self, error: EngineError, answers: int) -> Retry | None:
        """What to do after a failure, which is noted; None means give up. ``answers`` is how many the engine gave."""
        kind, crashed = error.kind, error.crashed
        if kind is ErrorKind.UNAVAILABLE and crashed is not None:
            # Away, says a proxy in front of a server that crashes, too, and a server with too little memory for the
            # row. If others have been answered since it said so last, it may well be because of this row.
            if self._away_at is None or self._away_at == answers:
                crashed = None
            else:
                kind = ErrorKind.INTERRUPTED
            self._away_at = answers
        if error.lost is not None:
            # Once is an accident. The second time it may be for the row, or for one beside it. Alone, it pays for each.
            self._losses += 1
            if self._losses > 1 and self._suspect is None:
                crashed = error.lost
        in_company = crashed is not None and self._suspect is None
        if crashed is not None:
            self._suspected(crashed)
        failures, pauses = self.failures + 1, self.pauses + 1
        retry = decide(kind, failures, pauses, error.retry_after, random.random(), self._policy, in_company)
        if retry is None or retry.counted:
            self.failures = failures
        else:
            self.pauses = pauses
        if retry is None and error.lost is not None and self._suspect is not None:
            # So that those that were lost with it need not be asked alone.
            self._suspect.convict()
        return retry

    def _suspected(self, crashed: str) -> None:
        if self._suspect is None:
            self._suspect = self._suspects.crashed(crashed, self._sent)
        elif self._suspect.convict():
            # It has very likely caused the crash in company, too.
            self.failures += 1

    def explained(self, error: EngineError) -> EngineError:
        """The error to give the row up with; where the row is to blame for crashes, saying so."""
        if self._suspect is None or not self._suspect.convicted:
            return error
        message = f"{error.message} That happened {self.failures} times, also with no other request in flight there."
        return EngineError(error.kind, message, status=error.status, crashed=error.crashed)

    def leave(self) -> None:
        if self._suspect is not None:
            self._suspect.leave()
