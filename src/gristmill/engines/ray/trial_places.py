"""The replicas that are on trial, and those that are kept for a row which is about to be asked there again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from gristmill.engines.ray.member import Member
from gristmill.engines.ray.trials import choose_for_trial, most_trials


class TrialPlaces:
    """By name. None of them gets anything else."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._kept: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._asked) + len(self._kept)

    def __iter__(self) -> Iterator[str]:
        return iter((*self._asked, *self._kept))

    def __contains__(self, name: str) -> bool:
        return name in self._asked or name in self._kept

    def begin(self, name: str) -> None:
        self.end(name)
        self._asked.add(name)

    def keep(self, name: str, seconds: float, over: Callable[[str], None]) -> None:
        """For the next that is asked alone, as it waits there for its turn already. ``over`` is called where none was
        asked for so long."""

        def lapse() -> None:
            del self._kept[name]
            over(name)

        self.end(name)
        self._kept[name] = asyncio.get_running_loop().call_later(seconds, lapse)

    def end(self, name: str) -> None:
        self._asked.discard(name)
        if (timer := self._kept.pop(name, None)) is not None:
            timer.cancel()

    def choose(self, members: Mapping[str, Member]) -> str | None:
        """None: no more may be on trial now."""
        for name in self._kept:
            if not members[name].rests:
                return name
        if len(self) >= most_trials(len(members)):
            return None
        free = (each for each in members.values() if each.name not in self and not each.rests)
        return choose_for_trial({each.name: each.candidate for each in free})
