"""Whose turn it is: batches share an engine by tokens, not by requests. Pure.

Start-time fair queueing (Goyal, Vin, Cheng 1996): each flow has a clock that its tokens move on, the slower the more
weight it has, and the flow whose clock is furthest behind goes next. A flow that was away starts where the others are,
so that nobody saves up turns and nobody starves.

Switching between flows may cost the engine a prefix. So a flow keeps its turn for some requests, as long as its clock
is not a quantum ahead. Somebody who waits for an answer stands behind nobody's turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

#: A turn ends a quantum of tokens ahead of the others, some ten times a long prefix; or after so many requests, as
#: requests of a few tokens may be slow, too.
QUANTUM = 20_000.0
TURN_REQUESTS = 64
#: A request of a flow of which nothing is known yet.
_FIRST_COST = 100.0
#: How fast the expected cost of a flow's requests follows what they cost.
_SMOOTHING = 0.1


@dataclass(slots=True)
class Flow:
    """Requests that belong together, as those of a batch. Twice the weight is twice the tokens; another one counts for
    every request that has not begun."""

    name: str
    weight: float = 1.0


class Charge(NamedTuple):
    """What a request was expected to cost when it began, in tokens, and the weight of its flow then."""

    tokens: float
    weight: float


#: Somebody is waiting for the answer.
INTERACTIVE = Flow("", 64.0)


class FairShare:
    def __init__(self, quantum: float = QUANTUM, turn_requests: int = TURN_REQUESTS) -> None:
        self._quantum = quantum
        self._turn_requests = turn_requests
        self._clocks: dict[str, float] = {}
        self._costs: dict[str, float] = {}
        self._now = 0.0
        self._current: str | None = None
        self._turn = 0

    def choose(self, waiting: Iterable[str]) -> str:
        """The flow to serve next, of one or more that wait; those that wait longest first."""
        names = list(waiting)
        furthest = min(names, key=self._clock)
        begin = self._clock(furthest)
        self._now = max(self._now, begin)
        if INTERACTIVE.name in names and self._clock(INTERACTIVE.name) - begin < self._quantum:
            return INTERACTIVE.name
        goes_on = self._current in names and self._turn < self._turn_requests
        if self._current is None or not goes_on or self._clock(self._current) - begin >= self._quantum:
            self._current, self._turn = furthest, 0
        self._turn += 1
        return self._current

    def granted(self, flow: Flow) -> Charge:
        """A request of ``flow`` begins; ``finished`` takes the charge back."""
        charge = Charge(self._costs.get(flow.name, _FIRST_COST), flow.weight)
        self._clocks[flow.name] = self._clock(flow.name) + charge.tokens / charge.weight
        return charge

    def finished(self, flow: Flow, charge: Charge, cost: float) -> None:
        """It has cost ``cost`` tokens."""
        if flow.name in self._clocks:
            self._clocks[flow.name] += (cost - charge.tokens) / charge.weight
            known = self._costs.get(flow.name, cost)
            self._costs[flow.name] = known + _SMOOTHING * (cost - known)

    def forget(self, name: str) -> None:
        """The flow has ended."""
        self._clocks.pop(name, None)
        self._costs.pop(name, None)
        if self._current == name:
            self._current = None

    def _clock(self, name: str) -> float:
        # Who has been away comes back where the others are.
        return max(self._clocks.get(name, self._now), self._now)


def weight(priority: int, seconds_needed: float | None, seconds_left: float) -> float:
    """Each step of priority is twice the share; a batch that would miss its deadline gets four times its own."""
    late = seconds_needed is not None and seconds_needed > seconds_left
    return 2.0**priority * (4.0 if late else 1.0)
