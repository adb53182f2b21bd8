"""The KV cache and attention over it by our own kernel, which reads a shared prefix once for all rows of a tile."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.openvino.attention_graph import read_attention, replace_attention
from gristmill.engines.openvino.attention_kernel import BLOCK_SIZE, TILE_ROWS, AttentionShape, Kernel, load_kernel
from gristmill.engines.openvino.attention_plan import AttentionPlan, plan_attention
from gristmill.engines.openvino.kv_cache import count_blocks
from gristmill.engines.openvino.populate import populate
from gristmill.engines.openvino.span import Span

Floats = NDArray[np.float32]


class SharedAttention:
    """A ``KvCache`` that computes attention too: ``prepare`` a step, then the graph calls ``run`` layer by layer."""

    block_size = BLOCK_SIZE

    def __init__(self, kernel: Kernel, shape: AttentionShape, layers: int, kv_bytes: int, threads: int = 1) -> None:
        """``threads`` compute at once, the caller's among them. Raises UserError when not even one block fits."""
        self._library = kernel.library
        self.notice = kernel.notice
        self._shape = ctypes.byref(shape)
        self._tile_tokens = TILE_ROWS * shape.kv_heads // shape.heads
        self._threads = threads
        # OpenVINO pins the thread that calls ``run`` to one core, which the threads it starts would inherit.
        usable = os.sched_getaffinity(0)
        self._pool = ThreadPoolExecutor(max(threads - 1, 1), "attention", lambda: os.sched_setaffinity(0, usable))
        block_floats = shape.kv_heads * shape.dim * BLOCK_SIZE
        self.blocks = count_blocks(kv_bytes, layers * 2 * block_floats * 4)
        self._keys = np.zeros((layers, self.blocks, block_floats), np.float32)
        self._values = np.zeros((layers, self.blocks, block_floats), np.float32)
        populate(self._keys)
        populate(self._values)
        self._plan: AttentionPlan

    @classmethod
    def connect(cls, model: Any, head_shape: tuple[int, int] | None, kv_bytes: int, threads: int) -> SharedAttention:
        """Make the paged attention nodes of ``model`` call the kernel. ``head_shape`` as ``read_head_shape`` found it.

        Raises KernelMissingError, with the model unchanged, when the kernel cannot do that here."""
        shape, layers = read_attention(model, head_shape)
        attention = cls(load_kernel(), shape, layers, kv_bytes, threads)
        replace_attention(model, attention.run)
        return attention

    def copy_block(self, source: int, target: int) -> None:
        for cache in (self._keys, self._values):
            cache[:, target] = cache[:, source]

    def prepare(self, spans: list[Span]) -> dict[str, NDArray[Any]]:
        self._plan = plan_attention(spans, BLOCK_SIZE, self._tile_tokens)
        return {}

    def run(self, layer: int, queries: Floats, keys: Floats, values: Floats, out: Floats) -> None:
        """One layer of the prepared step. ``queries`` and ``out`` have shape (tokens, heads * dim), ``keys`` and
        ``values`` (tokens, kv_heads * dim); all are contiguous."""
        plan = self._plan
        key_cache, value_cache = _pointer(self._keys[layer]), _pointer(self._values[layer])
        self._library.store(
            self._shape, _pointer(keys), _pointer(values), len(keys), _pointer(plan.slots), key_cache, value_cache
        )
        taken = ctypes.c_int32(0)

        def attend() -> None:
            self._library.attend(
                self._shape,
                _pointer(queries),
                key_cache,
                value_cache,
                _pointer(plan.tiles),
                len(plan.tiles),
                _pointer(plan.runs),
                _pointer(plan.order),
                _pointer(plan.blocks),
                ctypes.byref(taken),
                _pointer(out),
            )

        # The kernel runs without the interpreter's lock.
        others = [self._pool.submit(attend) for _ in range(self._threads - 1)]
        attend()
        for other in others:
            other.result()


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
