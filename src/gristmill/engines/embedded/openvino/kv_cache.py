"""The KV cache as OpenVINO's own attention kernel keeps it, and memory for any that is given ahead of its use."""

from __future__ import annotations

import ctypes
import mmap
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.model_runner import Span
from gristmill.extras import require
from gristmill.user_error import UserError

#: A piece of a sequence whose keys and values are in these blocks, those of its past first.
BlockSpan = Span[list[int]]


class KvCache(Protocol):
    """Keys and values of all layers in ``blocks`` blocks of ``block_size`` tokens."""

    block_size: int
    blocks: int
    #: All that the bytes of a block depend on besides the model and what computes.
    layout: str

    def copy_block(self, source: int, target: int) -> None: ...

    def export_blocks(self, blocks: list[int]) -> memoryview: ...

    def import_blocks(self, data: bytes, count: int, first: int, blocks: list[int]) -> None:
        """Of ``count`` blocks that were exported, put those from the place ``first`` on into ``blocks``. Raises
        ValueError where so many blocks have another size."""
        ...

    def prepare(self, spans: list[BlockSpan]) -> dict[str, NDArray[Any]]:
        """Get ready for a step; returns the inputs of the graph that tell it where ``spans`` are kept."""
        ...


class OpenVinoKvCache:
    def __init__(self, compiled: Any, request: Any, kv_bytes: int) -> None:
        """Raises UserError when ``kv_bytes`` holds not even one block, MemoryError when they cannot be reserved."""
        ov = require("openvino")
        ports = [port for port in compiled.inputs if "_cache." in port.any_name]
        shapes = [[dim.get_length() for dim in list(port.partial_shape)[1:]] for port in ports]
        self._block_bytes = sum(
            int(np.prod(shape)) * port.element_type.size for shape, port in zip(shapes, ports, strict=True)
        )
        self.block_size = shapes[0][1]
        self.blocks = count_blocks(kv_bytes, self._block_bytes)
        self.layout = " ".join(
            f"{port.element_type.to_string()}{shape}" for shape, port in zip(shapes, ports, strict=True)
        )
        self._caches = []
        for shape, port in zip(shapes, ports, strict=True):
            # The memory is only reserved here: the system gives it page by page, as blocks are first written.
            try:
                tensor = ov.Tensor(port.element_type, ov.Shape([self.blocks, *shape]))
            except RuntimeError as error:  # std::bad_alloc, as OpenVINO passes it on
                raise MemoryError(str(error)) from error
            request.set_tensor(port.any_name, tensor)
            self._caches.append(tensor.data)

    def copy_block(self, source: int, target: int) -> None:
        for cache in self._caches:
            cache[target] = cache[source]

    def export_blocks(self, blocks: list[int]) -> memoryview:
        return np.concatenate([cache[blocks].reshape(-1).view(np.uint8) for cache in self._caches]).data

    def import_blocks(self, data: bytes, count: int, first: int, blocks: list[int]) -> None:
        check_size(data, count * self._block_bytes)
        begin = 0
        for cache in self._caches:
            exported = np.frombuffer(data, cache.dtype, count * cache[0].size, begin).reshape(count, *cache.shape[1:])
            cache[blocks] = exported[first : first + len(blocks)]
            begin += exported.nbytes

    def prepare(self, spans: list[BlockSpan]) -> dict[str, NDArray[Any]]:
        past = np.array([span.past for span in spans], np.int32)
        lengths = np.array([len(span.tokens) for span in spans], np.int32)
        used = -(-(past + lengths) // self.block_size)
        return {
            "past_lens": past,
            "subsequence_begins": np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
            "block_indices": np.concatenate(
                [np.asarray(span.place[:n], np.int32) for span, n in zip(spans, used, strict=True)]
            ),
            "block_indices_begins": np.concatenate(([0], np.cumsum(used))).astype(np.int32),
            "max_context_len": np.array((past + lengths).max(), np.int32),
        }


def check_size(data: bytes, size: int) -> None:
    """Raises ValueError."""
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")


def count_blocks(kv_bytes: int, block_bytes: int) -> int:
    """How many blocks fit. Raises UserError when none does."""
    if kv_bytes < block_bytes:
        raise UserError(f"The KV cache is too small: one block of this model needs {block_bytes / 2**30:.4f} GiB.")
    return kv_bytes // block_bytes


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
