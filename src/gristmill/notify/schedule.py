"""What follows an attempt to deliver: a pure decision."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Delays in seconds: doubled from the first up to the longest.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 3_600.0
#: Seconds after the first attempt for which there are more, as with OpenAI.
RETRY_SECONDS = 72 * 3_600
#: More than there is time for, unless the clock is set back again and again.
MAX_ATTEMPTS = 300

_GONE = 410


class Next(NamedTuple):
    """``pause``: seconds until the next attempt, of what is pending."""

    status: Literal["delivered", "pending", "dead"]
    pause: float = 0.0


def decide(answered: int | None, attempts: int, age: float, retry_after: float | None, jitter: float) -> Next:
    """``answered``: the status of the answer, None without one. ``attempts`` have been made, the first ``age`` seconds
    ago; ``retry_after`` are the seconds that the target asks for. ``jitter`` is a random number in [0, 1): the pause is
    between half and the whole of the doubled one, so that what failed together does not come back together.

    Any 2xx is a success; a 410 says that nobody wants it there any more (Standard Webhooks); all else, redirects too,
    is a failure. The last attempt is the one at the end of the time.
    """
    if answered is not None and 200 <= answered < 300:
        return Next("delivered")
    left = RETRY_SECONDS - max(age, 0.0)
    if answered == _GONE or left <= 0 or attempts >= MAX_ATTEMPTS:
        return Next("dead")
    doubled = min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE)
    pause = max(doubled * (0.5 + 0.5 * jitter), min(retry_after or 0.0, LONGEST_PAUSE))
    return Next("pending", min(pause, left))
