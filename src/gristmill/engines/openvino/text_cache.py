"""What was made of texts, kept for the texts used last: as many as are of a given length together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TextCache(Generic[T]):
    """``cache(text)`` is ``make(text)``, called anew only where it is not kept. Safe from several threads, which may
    make the same thing at the same time.

    Bounded by the length of the texts rather than by their number, as one text may be a megabyte.
    """

    def __init__(self, make: Callable[[str], T], characters: int) -> None:
        self._make = make
        self._room = characters
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> T:
        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
        made = self._make(text)
        with self._lock:
            if text not in self._kept:
                self._kept[text] = made
                self._room -= _size(text)
            while self._room < 0:
                oldest, _ = self._kept.popitem(last=False)
                self._room += _size(oldest)
        return made


def _size(text: str) -> int:
    # A short text costs what its entry does.
    return len(text) + 64
