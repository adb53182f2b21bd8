"""Requests made ready on threads beside the one that computes steps.

Tokenizing, rendering a chat and compiling a grammar take from half a millisecond to a second; in the step's own thread
everybody would wait for that. Requests of a batch and interactive ones have a thread each, so that the latter wait for
none of the former; each keeps the order in which they came.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from gristmill.engines.openvino.failures import failed_by
from gristmill.engines.openvino.frames import Failed, Submit, SubmitScore
from gristmill.engines.openvino.generation import PreparedRequest
from gristmill.engines.openvino.scoring import PreparedScore

Prepared = PreparedRequest | PreparedScore | Failed


class Preparation:
    """Every request that is submitted, and not cancelled first, is delivered once: ready, or failed with the reason.

    ``deliver`` is called on the threads of this. After ``cancel(id)`` has returned it is not called for that request.
    """

    def __init__(
        self, prepare: Callable[[Submit | SubmitScore], Prepared], deliver: Callable[[Prepared], None]
    ) -> None:
        self._prepare = prepare
        self._deliver = deliver
        self._lock = threading.Lock()
        #: The ids that have not been delivered.
        self._open: set[int] = set()
        self._queues: dict[bool, queue.SimpleQueue[Submit | SubmitScore]] = {}
        for interactive in (True, False):
            waiting = self._queues[interactive] = queue.SimpleQueue()
            name = "prepare-interactive" if interactive else "prepare-batch"
            threading.Thread(target=self._run, args=(waiting,), name=name, daemon=True).start()

    def submit(self, frame: Submit | SubmitScore) -> None:
        with self._lock:
            self._open.add(frame.id)
        self._queues[frame.interactive].put(frame)

    def cancel(self, request_id: int) -> None:
        """Ids that are unknown have been delivered already."""
        with self._lock:
            self._open.discard(request_id)

    def _run(self, waiting: queue.SimpleQueue[Submit | SubmitScore]) -> None:
        while True:
            frame = waiting.get()
            if frame.id not in self._open:
                continue
            try:
                prepared = self._prepare(frame)
            except BaseException as error:
                prepared = failed_by(frame.id, error)
            with self._lock:
                if frame.id in self._open:
                    self._open.remove(frame.id)
                    self._deliver(prepared)
