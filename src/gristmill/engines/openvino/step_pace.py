"""How many tokens a step may have, so that nobody who comes while it is computed waits long for its end. Pure.

A large step computes a batch fastest, as each step reads the whole model. But an interactive request waits for the end
of the step that it finds. So steps are large only as long as nobody has asked for a while.
"""

from __future__ import annotations

#: What a step should take at most while people ask: what they wait for, at worst, before their own first step.
STEP_SECONDS = 0.4
#: For how long after an interactive request the next is expected.
EXPECTED_SECONDS = 60.0
#: Steps of fewer tokens are not worth their overhead, and say little about the pace: they are bound by memory.
FEWEST_TOKENS = 128
#: How fast the estimate follows the last step.
_SMOOTHING = 0.2


class StepPace:
    """Times in seconds of any one clock."""

    def __init__(self, most_tokens: int) -> None:
        self._most = most_tokens
        self._seconds_a_token: float | None = None
        self._asked: float | None = None

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

    def note(self, tokens: int, seconds: float) -> None:
        """A step has been computed."""
        if tokens < min(FEWEST_TOKENS, self._most):
            return
        found = seconds / tokens
        known = found if self._seconds_a_token is None else self._seconds_a_token
        self._seconds_a_token = known + _SMOOTHING * (found - known)
