"""How large a step may be, and when one is given up, so that nobody who asks waits long for its end. Pure."""

from __future__ import annotations

#: What an interactive request waits at most, in seconds, for the end of the step that it finds: one that would take
#: longer is aborted, and computed again afterwards.
LONGEST_WAIT = 0.4
#: What a step should take at most, in seconds, while interactive requests are expected. Longer ones, more of which an
#: abort would throw away, do not make a batch faster.
STEP_SECONDS = 1.0
#: For how long after an interactive request the next is expected.
EXPECTED_SECONDS = 60.0
#: Steps of fewer tokens are not worth their overhead, and say little about the pace: they are bound by memory.
FEWEST_TOKENS = 128
#: How fast the estimate follows the last step.
_SMOOTHING = 0.2


class StepPace:
    """Times in seconds of any one clock.

    A large step computes a batch fastest, as each step reads the whole model. But an interactive request that comes
    meanwhile either waits for its end, or throws away what has been computed of it. So steps are large only as long as
    nobody has asked for a while, and otherwise so short that little is lost either way.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most = most_tokens
        self._seconds_a_token: float | None = None
        self._asked: float | None = None
        self._aborted = False

    def asked(self, now: float) -> None:
        """An interactive request has come, or is being computed."""
        self._asked = now

    def tokens(self, now: float) -> int:
        """The limit for the next step."""
        if self._asked is None or now - self._asked > EXPECTED_SECONDS:
            return self._most
        if self._seconds_a_token is None:
            return min(FEWEST_TOKENS, self._most)
        return min(max(round(STEP_SECONDS / self._seconds_a_token), FEWEST_TOKENS), self._most)

    def worth_aborting(self, tokens: int, seconds: float) -> bool:
        """Whether to abort, for an interactive request that has just come, a step of the batch's ``tokens`` that has
        been computed for ``seconds``. Never twice in a row: however many ask, the batch goes on."""
        if self._aborted or tokens < FEWEST_TOKENS:
            return False
        return self._seconds_a_token is None or tokens * self._seconds_a_token - seconds > LONGEST_WAIT

    def aborted(self) -> None:
        """A step has been aborted."""
        self._aborted = True

    def computed(self, tokens: int, seconds: float, interactive: bool) -> None:
        """A step has been computed; ``interactive``: for somebody who is waiting, among others."""
        if not interactive:
            self._aborted = False
        if tokens < min(FEWEST_TOKENS, self._most):
            return
        found = seconds / tokens
        known = found if self._seconds_a_token is None else self._seconds_a_token
        self._seconds_a_token = known + _SMOOTHING * (found - known)
