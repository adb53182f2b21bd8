"""How fast work went in the last hours: a sample every few seconds, kept in memory and bounded. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gristmill.telemetry.progress import Counts

#: Seconds between samples; and how many of them are kept: four hours.
PERIOD = 5.0
KEPT = 2_880
#: Jobs whose own samples are kept; those that were worked on longest ago go first.
KEPT_JOBS = 100


class Sample(NamedTuple):
    """``time`` is Unix time, the end of what was measured."""

    time: float
    rows_per_second: float
    tokens_per_second: float


class Throughput:
    """``note`` what has been done by now; ``all`` and ``of`` tell how fast that was."""

    def __init__(self) -> None:
        self._all: deque[Sample] = deque(maxlen=KEPT)
        self._jobs: OrderedDict[str, deque[Sample]] = OrderedDict()
        self._before: dict[str, Counts] = {}

    def note(self, now: float, seconds: float, done: Mapping[str, Counts], begun_with: Mapping[str, Counts]) -> None:
        """``done`` by job, in the ``seconds`` up to ``now`` and before; ``begun_with`` is what had been done of it when
        work on it began here."""
        rows = tokens = 0.0
        for name, counts in done.items():
            before = self._before.get(name, begun_with.get(name, Counts()))
            job_rows = max(counts.rows - before.rows, 0) / seconds
            job_tokens = max(_tokens(counts) - _tokens(before), 0) / seconds
            self._samples(name).append(Sample(now, job_rows, job_tokens))
            rows, tokens = rows + job_rows, tokens + job_tokens
        self._before = dict(done)
        self._all.append(Sample(now, rows, tokens))

    def all(self) -> list[Sample]:
        """Of everything, oldest first."""
        return list(self._all)

    def of(self, names: Iterable[str]) -> list[Sample]:
        """Of these jobs together."""
        summed = {sample.time: Sample(sample.time, 0.0, 0.0) for sample in self._all}
        for name in names:
            for time, rows, tokens in self._jobs.get(name, ()):
                if time in summed:
                    known = summed[time]
                    summed[time] = Sample(time, known.rows_per_second + rows, known.tokens_per_second + tokens)
        return list(summed.values())

    def of_one(self, name: str) -> list[Sample]:
        """Of one job, while it was worked on."""
        return list(self._jobs.get(name, ()))

    def _samples(self, name: str) -> deque[Sample]:
        if name not in self._jobs and len(self._jobs) >= KEPT_JOBS:
            self._jobs.popitem(last=False)
        samples = self._jobs.setdefault(name, deque(maxlen=KEPT))
        self._jobs.move_to_end(name)
        return samples


def _tokens(counts: Counts) -> int:
    return counts.prompt_tokens + counts.completion_tokens


def thinned(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most ``most`` samples, each the mean of as many neighbours."""
    together = -(-len(samples) // most) if samples else 1
    groups = [samples[start : start + together] for start in range(0, len(samples), together)]
    return [
        Sample(
            group[-1].time,
            sum(each.rows_per_second for each in group) / len(group),
            sum(each.tokens_per_second for each in group) / len(group),
        )
        for group in groups
    ]
