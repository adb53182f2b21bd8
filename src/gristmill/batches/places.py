"""Who runs and who waits: so many batches at a time at each stage, by priority and in turn. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gristmill.batches import lifecycle
from gristmill.storage.records import BatchRecord, Stage

#: Batches worked on at the same time. Executing takes memory for the rows read ahead, validating a core or two; a batch
#: that only ends never waits behind those that run.
PLACES = {Stage.VALIDATION: 4, Stage.EXECUTION: 16, Stage.ENDING: 4}
#: What a batch waits for that is paused.
PAUSED = "paused"
#: Seconds after which a batch gives way to one of the same priority that waits, so that none waits for ever.
TURN_SECONDS = 600.0


class HeldPlace(NamedTuple):
    """A batch that has a place, for ``held`` seconds now; ``leaving``: it is about to give it up."""

    batch_id: str
    stage: Stage
    priority: int
    held: float
    leaving: bool


def who_gives_way(held: Sequence[HeldPlace], priority: int) -> str | None:
    """Which of the executing batches makes room for one of ``priority`` that waits; None where it has to wait on.

    The one with the lowest priority, and of those the one that has had its place longest: at once for a higher
    priority, after its turn for its own.
    """
    executing = [place for place in held if place.stage is Stage.EXECUTION]
    if not executing or any(place.leaving for place in executing):
        return None
    last = min(executing, key=lambda place: (place.priority, -place.held))
    if last.priority < priority or (last.priority == priority and last.held >= TURN_SECONDS):
        return last.batch_id
    return None


def waiting_reason(batch: BatchRecord, now: float, taken: Callable[[Stage], int]) -> str | None:
    """Why nobody works on an unfinished batch, in words; None where somebody will at once. ``taken``: how many places
    of a stage are."""
    if lifecycle.rests(batch, now):
        return PAUSED
    step = lifecycle.next_step(batch, now)
    if step is None:
        return None
    places = PLACES[step.stage]
    if taken(step.stage) < places:
        return None
    doing = {Stage.VALIDATION: "are validated", Stage.EXECUTION: "run", Stage.ENDING: "write their files"}[step.stage]
    return f"Its turn: {places} batches {doing} at a time, those with a higher priority first."
