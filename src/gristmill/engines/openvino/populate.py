"""Memory given by the system ahead of its use, rather than a page at a time in the middle of a step."""

from __future__ import annotations

import ctypes
import mmap
import threading
from typing import Any

from numpy.typing import NDArray

#: Linux 5.14's MADV_POPULATE_WRITE: as if each page had been written to, but what they hold stays.
_POPULATE_WRITE = 23
#: Bytes a call, so that others who need the process's memory map get their turn.
_PIECE = 16 * 2**20


def populate(array: NDArray[Any]) -> None:
    """Start a thread that has the pages of ``array`` given; where the system cannot, they come as they are written."""
    threading.Thread(target=_populate, args=(array,), name="populate", daemon=True).start()


def _populate(array: NDArray[Any]) -> None:
    madvise = ctypes.CDLL(None).madvise
    begin = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (array.ctypes.data + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    for place in range(begin, end, _PIECE):
        size = min(_PIECE, end - place)
        if madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), ctypes.c_int(_POPULATE_WRITE)):
            return
