"""Lines written by a thread of their own, so that nobody who logs ever waits for who reads the log."""

from __future__ import annotations

import atexit
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import TextIO

from prometheus_client import Counter

#: Lines that wait for a reader; what comes then is lost, and counted.
MAX_WAITING = 4_096
#: Bytes of a line; of a longer one, the start.
MAX_LINE = 16 * 1024
#: At the end of the process, what waits may take so long (seconds) to be taken.
LAST_SECONDS = 2.0


class LineWriter:
    """A text stream over ``stream`` whose ``write`` never waits and never raises. A pipe that nobody reads, a full disk
    or a closed terminal costs lines, which ``lost`` counts and a line tells once there is room again."""

    def __init__(self, stream: TextIO, lost: Counter | None = None) -> None:
        self.stream = stream
        #: The line that tells how many were lost.
        self.tell_lost: Callable[[int], str] = "Lines of the log that were lost, as nobody took them: {}".format
        self._descriptor = _descriptor(stream)
        self._lost_count = lost
        self._lost = 0
        #: After a failure in the middle of a line, the next one begins on a new one.
        self._torn = False
        self._waiting: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    def write(self, text: str) -> int:
        if self._waiting.qsize() >= MAX_WAITING or not self._thread.is_alive():
            self._lose()
        else:
            self._waiting.put(text)
        return len(text)

    def flush(self) -> None:
        """Nothing: ``drain`` waits."""

    def drain(self, seconds: float = LAST_SECONDS) -> None:
        """Wait until all that was written so far has been taken, or the time is over."""
        if self._thread.is_alive():
            taken = threading.Event()
            self._waiting.put(taken)
            taken.wait(seconds)

    def _lose(self) -> None:
        self._lost += 1
        if self._lost_count is not None:
            self._lost_count.inc()

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                if self._lost and self._waiting.qsize() < MAX_WAITING // 2:
                    lost, self._lost = self._lost, 0
                    self._put(f"{self.tell_lost(lost)}\n")
                self._put(item)
            except Exception:
                self._lose()

    def _put(self, text: str) -> None:
        if self._descriptor is None:
            self.stream.write(text)
            self.stream.flush()
            return
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        if len(data) > MAX_LINE:
            data = data[:MAX_LINE] + b"...\n"
        if self._torn:
            data = b"\n" + data
        left = memoryview(data)
        # Not by way of the stream: at the end of the process, Python would wait for a lock that this thread holds.
        while left:
            try:
                written = os.write(self._descriptor, left)
            except BlockingIOError:
                # Somebody else has made what they share with us non-blocking.
                select.select([], [self._descriptor], [])
                continue
            except OSError:
                self._torn = self._torn or len(left) < len(data)
                raise
            left = left[written:]
        self._torn = False


def _descriptor(stream: TextIO) -> int | None:
    """None for a stream that only Python knows, such as one that captures output."""
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
