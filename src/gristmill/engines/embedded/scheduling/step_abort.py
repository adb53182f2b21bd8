"""Giving a step up while it is computed, from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable


class StepAborted(Exception):
    """The step was not computed. What it has written is undefined, in no other places than it was to write to."""


class StepAbort:
    """For one step. ``ask`` may come before the step begins, while it is computed, or after: then it does nothing, and
    above all nothing to the next step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancel: Callable[[], object] | None = None
        self.asked = False

    def ask(self) -> None:
        """Safe from any thread, and does not wait for the step's end."""
        with self._lock:
            self.asked = True
            if self._cancel is not None:
                self._cancel()

    def begin(self, start: Callable[[], object], cancel: Callable[[], object]) -> None:
        """Call ``start``, which begins to compute and returns; afterwards ``ask`` calls ``cancel``, until ``end``.
        Raises StepAborted instead of starting when the step has been given up already."""
        with self._lock:
            if self.asked:
                raise StepAborted
            start()
            self._cancel = cancel

    def end(self) -> None:
        with self._lock:
            self._cancel = None
