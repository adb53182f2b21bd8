"""How long filling a rubric in may take: it is a template that somebody has written."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

#: Of computing.
_SECONDS = 30.0


@contextlib.contextmanager
def rubric_time() -> Iterator[None]:
    """The system ends this process by SIGVTALRM if it computes for longer: a template may hold one step without end,
    which no exception could leave."""
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
