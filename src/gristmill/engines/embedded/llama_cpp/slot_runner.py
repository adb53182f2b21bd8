"""The model as a function that gives a token the same bits, whatever was computed with it, before it or elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.kv.slot_memory import SlotMemory
from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary
from gristmill.engines.embedded.llama_cpp.runner import DecodeCall, LlamaRunner

#: Tokens of a call at most, and of a microbatch, so that llama.cpp cuts no call in two. Without flash attention a call
#: has room for the products of each of them with all cells.
SLOT_CALL = 128
#: llama.cpp multiplies activations of four tokens together where weights are repacked, those left over one by one, by
#: other code that rounds otherwise; and in calls of four or fewer other things are computed by code of their own.
_TOGETHER, _FEWEST = 4, 8
#: Sequences of a context: the slot, and the one that fills calls up.
SLOT_SEQUENCES = 2
_FILL = 1


class SlotRunner(LlamaRunner):
    """Of a context without flash attention (or with a quantized cache, which has one kind of it), and with
    ``SLOT_SEQUENCES``, where each call is filled up so that all of it is multiplied by the same code. The other things
    that move a last bit are where in the cache a token's predecessors lie, of which ``SlotMemory`` takes care, and the
    number of threads, which never changes."""

    def __init__(self, library: LlamaLibrary, context: Any, vocabulary_size: int) -> None:
        # One: the last layer and the logits are computed for the wanted positions only, so for as many of them always.
        super().__init__(library, context, vocabulary_size, most_outputs=1)
        # What is on disk was computed with others, and has other bits.
        self.kv_format = None

    def new_memory(self) -> SlotMemory:  # type: ignore[override]
        self._library.llama_memory_clear(self._memory, False)
        return SlotMemory(self._cells - _FEWEST)

    def _decode(self, call: DecodeCall, copy: bool) -> NDArray[np.float32]:
        try:
            return super()._decode(filled(call), copy)
        finally:
            self._library.llama_memory_seq_rm(self._memory, _FILL, -1, -1)


def filled(call: DecodeCall) -> DecodeCall:
    """With tokens of another sequence behind those of the call, which see none of them. Pure."""
    count = len(call.tokens)
    more = max(math.ceil(count / _TOGETHER) * _TOGETHER, _FEWEST) - count
    return DecodeCall(
        np.concatenate([call.tokens, np.zeros(more, np.int64)]),
        np.concatenate([call.positions, np.arange(more, dtype=np.int32)]),
        np.concatenate([call.sequences, np.full(more, _FILL, np.int32)]),
        np.concatenate([call.wanted, np.zeros(more, np.int8)]),
    )
