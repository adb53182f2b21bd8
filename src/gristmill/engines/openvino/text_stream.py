"""From token bytes to text as it becomes certain: whole characters, and nothing that may yet be a stop string."""

from __future__ import annotations

import codecs


class TextStream:
    """``text`` is all that has been released. After ``stopped`` it ends right before the stop string."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """Take the next token's bytes; returns the text they release, which may be empty."""
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """The output has ended: release what was held back."""
        released = self._release(self._decoder.decode(b"", True))
        if self.stopped:
            return released
        rest, self._held = self._held, ""
        self.text += rest
        return released + rest

    def _release(self, decoded: str) -> str:
        if self.stopped:
            return ""
        self._held += decoded
        ends = [place for place in map(self._held.find, self._stops) if place >= 0]
        if ends:
            self.stopped = True
            keep = min(ends)
        else:
            keep = len(self._held) - self._suspicious()
        released, self._held = self._held[:keep], self._held[keep:]
        self.text += released
        return released

    def _suspicious(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
