"""Whether and when to try a request again: a pure decision from an error's kind and the attempts so far."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.engines.errors import ErrorKind


class RetryPolicy(NamedTuple):
    """Delays in seconds; they double from ``first_delay`` up to ``max_delay``."""

    max_attempts: int = 4
    first_delay: float = 0.5
    max_delay: float = 30.0


class Retry(NamedTuple):
    """Try again after ``delay`` seconds; ``counted`` says whether the failure used up an attempt."""

    delay: float
    counted: bool


def decide(
    kind: ErrorKind,
    failures: int,
    uncounted: int,
    retry_after: float | None,
    jitter: float,
    policy: RetryPolicy,
    in_company: bool = False,
) -> Retry | None:
    """What to do after a failure; None means give up.

    ``failures`` counted attempts have failed including this one, ``uncounted`` times the engine asked for a pause.
    ``jitter`` is a random number in [0, 1): the delay is between half and the whole of the doubling delay, so
    that rows which failed together do not come back together. ``in_company``: the server crashed while it was
    answering other requests as well, so that the failure may be theirs.
    """
    if in_company:
        return Retry(_backoff(uncounted, jitter, policy), counted=False)
    match kind:
        case ErrorKind.INVALID_REQUEST:
            return None
        case ErrorKind.UNAVAILABLE:
            return Retry(0.0, counted=False)
        case ErrorKind.OVERLOADED:
            delay = _backoff(uncounted, jitter, policy)
            return Retry(delay if retry_after is None else max(retry_after, delay), counted=False)
        case ErrorKind.TIMEOUT | ErrorKind.INTERRUPTED:
            if failures >= policy.max_attempts:
                return None
            return Retry(_backoff(failures, jitter, policy), counted=True)


def _backoff(times: int, jitter: float, policy: RetryPolicy) -> float:
    doubled = policy.first_delay * 2.0 ** min(max(times - 1, 0), 30)
    return min(doubled, policy.max_delay) * (0.5 + 0.5 * jitter)
