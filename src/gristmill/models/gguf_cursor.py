"""Reads the values of a GGUF header one behind the other."""

from __future__ import annotations

import mmap
import struct

STRING, ARRAY = 8, 9
#: The longest array that is kept: those of a number a layer are short, those of the vocabulary long.
_KEPT_NUMBERS = 1024
#: Value type number of the format -> struct code.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class GgufCursor:
    """Reads from ``at`` on; in a file, from behind the magic number. Raises struct.error where the data end before
    that, or are of no known type, and UnicodeDecodeError."""

    def __init__(self, data: mmap.mmap | bytes, at: int = 4) -> None:
        self.data = data
        self.at = at

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value  # type: ignore[no-any-return]

    def string(self) -> str:
        length = self.number("Q")
        raw = self.data[self.at : self.at + length]
        if len(raw) < length:
            raise struct.error
        self.at += length
        return raw.decode()

    def value(self, kind: int) -> str | int | float | bool:
        """A scalar or a string."""
        if kind == STRING:
            return self.string()
        if kind not in SCALARS:
            raise struct.error
        return self.number(SCALARS[kind])

    def array(self) -> tuple[int, tuple[float, ...]]:
        """How many values it has, and the values where they are a few numbers; others are stepped over."""
        start = self.at
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS and count <= _KEPT_NUMBERS:
            return count, tuple(self.number(SCALARS[kind]) for _ in range(count))
        self.at = start
        self._skip_array()
        return count, ()

    def skip(self, kind: int) -> None:
        """Past a value of this type."""
        if kind == ARRAY:
            self._skip_array()
        else:
            self.value(kind)

    def _skip_array(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            self.at += count * struct.calcsize("<" + SCALARS[kind])
            return
        if kind not in (STRING, ARRAY):
            raise struct.error
        unpack, data, at = struct.Struct("<Q").unpack_from, self.data, self.at
        if kind == STRING:
            for _ in range(count):
                at += 8 + unpack(data, at)[0]
            self.at = at
        else:
            for _ in range(count):
                self._skip_array()
