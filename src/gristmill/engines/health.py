"""Whether one of several servers or replicas may be asked: the circuit breaker, a pure decision. Times in seconds.

Closed: asked. Open: left alone for a while that doubles with every failed trial. Half open: after that while, one
request at a time, until one succeeds.
"""

from __future__ import annotations

from typing import NamedTuple

#: Failed answers in a row that open the circuit; a broken connection does so at once.
_TOLERATED = 5
_FIRST_REST = 0.5
_LONGEST_REST = 30.0
#: How long an endpoint that is busy, and does not say for how long, is left alone if others are free.
_BUSY_REST = 1.0


class ServerHealth(NamedTuple):
    """``failures`` in a row; ``trips`` counts how often the circuit opened since the last success."""

    failures: int = 0
    trips: int = 0
    rest_until: float = 0.0


def usable(health: ServerHealth, in_flight: int, now: float) -> bool:
    if now < health.rest_until:
        return False
    return health.trips == 0 or in_flight == 0


def after_failure(health: ServerHealth, gone: bool, now: float) -> ServerHealth:
    """``gone``: there was no connection, or no server behind it. Requests that fail together count as one trip."""
    failures = health.failures + 1
    if not gone and failures < _TOLERATED:
        return health._replace(failures=failures)
    if now < health.rest_until:
        return health._replace(failures=failures)
    rest = min(_FIRST_REST * 2.0 ** min(health.trips, 16), _LONGEST_REST)
    return ServerHealth(failures, health.trips + 1, now + rest)


def after_push_back(health: ServerHealth, retry_after: float | None, now: float) -> ServerHealth:
    rest = _BUSY_REST if retry_after is None else min(retry_after, _LONGEST_REST)
    return health._replace(rest_until=max(health.rest_until, now + rest))
