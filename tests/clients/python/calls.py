"""What the scripts of Python clients share: which calls there are, running them, and telling the runner.

Standard library only, for it runs in every client's own environment. The runner (``run.py``) says by the environment
where the servers are and where results go, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

#: Seconds that one call may take.
_LIMIT = 180


class Server(NamedTuple):
    """A Gristmill server. ``url`` ends in ``/v1``; ``root`` is without it; ``model`` is what its engine serves."""

    engine: str
    url: str
    model: str

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")


class _Call(NamedTuple):
    name: str
    engine: str
    cannot: str
    function: Callable[[Server], Any]


_calls: list[_Call] = []
#: By engine.
SERVERS = {name: Server(name, *place) for name, place in json.loads(os.environ["CLIENTS_SERVERS"]).items()}


def call(name: str, engine: str = "simulated", cannot: str = "") -> Callable[[Callable[[Server], Any]], Any]:
    """Marks a function as one row of the table. It gets the server of ``engine`` and fails by raising.

    ``cannot`` is the reason why it must fail; if it does not, that is a failure.
    """

    def keep(function: Callable[[Server], Any]) -> Callable[[Server], Any]:
        _calls.append(_Call(name, engine, cannot, function))
        return function

    return keep


def run_calls() -> None:
    """Run all calls, one after another, however many fail. ``argv`` may name some of them."""
    wanted = [each for each in _calls if not sys.argv[1:] or any(part in each.name for part in sys.argv[1:])]
    signal.signal(signal.SIGALRM, _too_long)
    for each in wanted:
        _tell(call=each.name, engine=each.engine, state="began", time=time.time())
        signal.alarm(_LIMIT)
        try:
            done = each.function(SERVERS[each.engine])
            if inspect.iscoroutine(done):
                asyncio.run(done)
            outcome, reason = ("failed", "It works now: take the reason away.") if each.cannot else ("passed", "")
        except Exception as error:
            traceback.print_exc()
            told = f"{type(error).__name__}: {error}"
            outcome, reason = ("cannot", each.cannot) if each.cannot else ("failed", told)
        finally:
            signal.alarm(0)
        _tell(call=each.name, engine=each.engine, state=outcome, reason=reason, time=time.time())


def check(condition: object, told: object = "") -> None:
    """An assertion that says what was there instead."""
    if not condition:
        raise AssertionError(str(told) or "not so")


def _too_long(*_: object) -> None:
    raise TimeoutError(f"no end within {_LIMIT} s")


def _tell(**what: object) -> None:
    with Path(os.environ["CLIENTS_RESULTS"]).open("a") as results:
        results.write(json.dumps(what) + "\n")
