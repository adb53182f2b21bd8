"""Keys and values of a sequence's tokens as bytes, through a sequence id that nothing else uses.

llama.cpp saves and restores whole sequences. A part of one is forked first, which costs nothing; and one that was
restored becomes part of another in the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary

#: What llama.cpp says where a restored sequence has no room.
_NO_ROOM = "available cells"


class KvState:
    def __init__(self, library: LlamaLibrary, context: Any, spare: int) -> None:
        """``spare``: the id of a sequence that is always empty between two calls."""
        self._library = library
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._spare = spare

    def save(self, sequence: int, begin: int, end: int) -> memoryview:
        """Raises ValueError where the cache does not have all of those tokens (a window has passed them)."""
        library = self._library
        library.llama_memory_seq_cp(self._memory, sequence, self._spare, begin, end)
        try:
            self._check_holds(begin, end)
            size = library.llama_state_seq_get_size_ext(self._context, self._spare, 0)
            data = np.empty(size, np.uint8)
            if library.llama_state_seq_get_data_ext(self._context, data.ctypes.data, size, self._spare, 0) != size:
                raise ValueError("llama.cpp cannot save its KV state")
        finally:
            self._empty()
        return data.data

    def restore(self, data: bytes, saved: tuple[int, int], sequence: int, begin: int, end: int) -> None:
        """Of the ``saved`` tokens, put those from ``begin`` to ``end`` behind what ``sequence`` has. Raises ValueError
        where ``data`` is not their state, MemoryError where there is no room for all of them."""
        library = self._library
        library.log.forget()
        try:
            taken = library.llama_state_seq_set_data_ext(self._context, data, len(data), self._spare, 0)
            if taken != len(data):
                reason = library.log.reason()
                raise MemoryError(reason) if _NO_ROOM in reason else ValueError(reason or "llama.cpp refuses it")
            self._check_holds(*saved)
            library.llama_memory_seq_cp(self._memory, self._spare, sequence, begin, end)
        finally:
            self._empty()

    def _check_holds(self, begin: int, end: int) -> None:
        first = self._library.llama_memory_seq_pos_min(self._memory, self._spare)
        last = self._library.llama_memory_seq_pos_max(self._memory, self._spare)
        if (first, last + 1) != (begin, end):
            raise ValueError(f"it has tokens {first} to {last + 1} instead of {begin} to {end}")

    def _empty(self) -> None:
        self._library.llama_memory_seq_rm(self._memory, self._spare, -1, -1)
