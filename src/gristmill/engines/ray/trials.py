"""Which replica is given to a row that is asked alone, and how many are at a time. Pure.

No other row goes to a replica that is on trial. Most rows that are asked so are to blame for a crash, and some servers
die of a row only a moment after they have broken it off, under whatever comes next. So a replica that has broken a row
off comes last, until it has answered one since.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: One of so many replicas may be on trial.
_ONE_OF = 4

#: A row waits for its replica, or for one to be free, for this part of the time after which it would be stale.
_PART_OF_STALE = 0.1


class Candidate(NamedTuple):
    """A replica that could be asked. ``broke_off``: when it last broke a request off, or was away, in seconds; 0 where
    it has answered one since."""

    in_flight: int
    broke_off: float


def most_trials(replicas: int) -> int:
    """So many of the replicas that are there may be on trial at a time."""
    return max(1, replicas // _ONE_OF)


def longest_wait(stale: float) -> float:
    """Seconds after which a row that waits to be alone goes back to who asked, to see whether it is still his to ask: a
    server that hangs meanwhile does not."""
    return _PART_OF_STALE * stale


def choose_for_trial(candidates: Mapping[str, Candidate]) -> str | None:
    """Of those that are neither on trial nor away. The emptiest of those that answer, as it is free first; else the one
    that has had the longest time to die."""
    if not candidates:
        return None
    return min(candidates, key=lambda name: (candidates[name].broke_off, candidates[name].in_flight))
