"""The KV cache and attention over it by our own kernel, which reads a shared prefix once for all rows of a tile."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.openvino.attention_kernel import (
    BLOCK_SIZE,
    CHUNK_BLOCKS,
    TILE_ROWS,
    AttentionShape,
    Kernel,
    KernelMissingError,
    load_kernel,
)
from gristmill.engines.embedded.openvino.attention_plan import AttentionPlan, plan_attention
from gristmill.engines.embedded.openvino.kv_cache import BlockSpan, check_size, count_blocks, populate
from gristmill.extras import require

#: Inputs of OpenVINO's paged attention node by their place, as of the tested releases.
_QUERIES, _KEYS, _VALUES, _SCALE, _SLIDING_WINDOW, _ALIBI_SLOPES, _SINKS = 0, 1, 2, 9, 10, 11, 20

#: Layer, queries, keys, values, and the array that takes the result.
RunLayer = Callable[[int, Any, Any, Any, Any], None]


def read_head_shape(model: Any) -> tuple[int, int] | None:
    """KV heads and head size, from the cache of the stateful graph (before its paged transformation), where they are
    known and the same in every layer; else None."""
    found = set()
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            shape = node.get_output_partial_shape(0)
            if len(shape) != 4 or shape[1].is_dynamic or shape[3].is_dynamic:
                return None
            found.add((shape[1].get_length(), shape[3].get_length()))
    return found.pop() if len(found) == 1 else None


def read_attention(
    model: Any, head_shape: tuple[int, int] | None, score_cap: float = 0.0
) -> tuple[AttentionShape, list[int]]:
    """The attention that every layer of ``model`` computes, with the soft cap that no node tells of; and of each layer
    the sliding window: how many tokens a token sees, itself among them, or 0 where it sees all before it.

    Raises KernelMissingError for attention that the kernel does not compute.
    """
    nodes = _attention_nodes(model)
    widths = {int(node.get_input_partial_shape(_QUERIES)[1].get_length()) for node in nodes}
    scales = {float(_constant(node, _SCALE)) for node in nodes}
    if head_shape is None or len(widths) != 1 or len(scales) != 1:
        raise KernelMissingError("the layers of this model are not all alike")
    if any(_constant(node, _ALIBI_SLOPES).size or _constant(node, _SINKS).size for node in nodes):
        raise KernelMissingError("this model's attention has ALiBi slopes or sinks")
    kv_heads, dim = head_shape
    shape = AttentionShape(widths.pop() // dim, kv_heads, dim, scales.pop(), score_cap)
    if not shape.supported:
        raise KernelMissingError(f"it has no code for {shape.heads} query and {kv_heads} KV heads of size {dim}")
    return shape, [int(_constant(node, _SLIDING_WINDOW)) for node in nodes]


def replace_attention(model: Any, run: RunLayer) -> list[Any]:
    """Make every paged attention node call ``run``, and drop the inputs that only such nodes used. The list has these
    nodes, and will have those that OpenVINO makes of them: they are to be ``cut_off`` once the model is not used."""
    made: list[Any] = []
    node_class = _node_class(made)
    for layer, node in enumerate(_attention_nodes(model)):
        inputs = [node.input_value(place) for place in (_QUERIES, _KEYS, _VALUES)]
        node.output(0).replace(node_class(inputs, layer, run).output(0))
    # A node that is still named here counts as a user of its inputs.
    del node, inputs
    for parameter in list(model.get_parameters()):
        if not parameter.output(0).get_target_inputs():
            model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
    return made


def cut_off(made: list[Any]) -> None:
    """Let go of the model before these nodes: OpenVINO never frees a node that is a Python object, and with it the
    model's weights and its KV cache, 700 MB for a model of 135 million parameters."""
    nothing = require("openvino").opset13.constant(np.zeros((1, 1), np.float32)).output(0)
    for node in made:
        node.let_go()
        for port in node.inputs():
            port.replace_source_output(nothing)
    made.clear()


def set_windows(model: Any, windows: Sequence[int]) -> None:
    """Have each layer of a paged ``model`` reach back as many tokens as ``windows`` says, if it says anything."""
    constant = require("openvino.opset13").constant
    for node, window in zip(_attention_nodes(model) if windows else [], windows, strict=True):
        node.input(_SLIDING_WINDOW).replace_source_output(constant(np.int32(window)).output(0))


def _attention_nodes(model: Any) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "PagedAttentionExtension"]


def _constant(node: Any, place: int) -> Any:
    """The value of an input that depends on no input of the model. The transformation leaves some as an expression
    (a window, as the negative of what the mask said). Raises KernelMissingError for others."""
    source = node.input_value(place)
    if source.get_node().get_type_name() == "Constant":
        return source.get_node().data
    ov = require("openvino")
    try:
        return ov.compile_model(ov.Model([source], []), "CPU")([])[0]
    except RuntimeError:
        raise KernelMissingError("this model computes how its attention works from what it is asked") from None


def _node_class(made: list[Any]) -> Any:
    """A class for one model, whose nodes are added to ``made``. Once that model runs, OpenVINO clones each node at
    every step, only to learn the shape of its result, and never frees a clone that is a Python object: 10 kB a layer
    and step. Any built-in node whose result has its input's shape will do for that."""
    ov = require("openvino")
    shaped_like = require("openvino.opset8").relu

    class SharedPrefixAttention(ov.Op):  # type: ignore[misc, name-defined]
        running = False

        def __init__(self, inputs: Any = None, layer: int = 0, run: RunLayer | None = None) -> None:
            super().__init__(self, inputs)
            self._layer = layer
            self._run = run
            made.append(self)
            if inputs is not None:
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            if SharedPrefixAttention.running:
                return shaped_like(inputs[0])
            return SharedPrefixAttention(inputs, self._layer, self._run)

        def let_go(self) -> None:
            self._run = None

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            assert self._run
            SharedPrefixAttention.running = True
            queries, keys, values = (each.data for each in inputs)
            self._run(self._layer, queries, keys, values, outputs[0].data)
            return True

        def visit_attributes(self, visitor: Any) -> bool:
            return True

    return SharedPrefixAttention


Floats = NDArray[np.float32]


class SharedAttention:
    """A ``KvCache`` that computes attention too: ``prepare`` a step, then the graph calls ``run`` layer by layer."""

    block_size = BLOCK_SIZE

    def __init__(
        self, kernel: Kernel, shape: AttentionShape, windows: list[int], kv_bytes: int, threads: int = 1
    ) -> None:
        """``windows`` are the layers' as ``read_attention`` finds them. ``threads`` compute at once, the caller's among
        them. Raises UserError when not even one block fits."""
        self._library = kernel.library
        self.notice = kernel.notice
        self._shape = ctypes.byref(shape)
        self._windows = windows
        self._tile_tokens = TILE_ROWS * shape.kv_heads // shape.heads
        self._threads = threads
        # OpenVINO pins the thread that calls ``run`` to one core, which the threads it starts would inherit.
        usable = os.sched_getaffinity(0)
        self._pool = ThreadPoolExecutor(max(threads - 1, 1), "attention", lambda: os.sched_setaffinity(0, usable))
        layers = len(windows)
        block_floats = shape.kv_heads * shape.dim * BLOCK_SIZE
        self.layout = f"attention.c {kernel.build}, {layers}x{shape.kv_heads}x{shape.dim} float32"
        self.blocks = count_blocks(kv_bytes, layers * 2 * block_floats * 4)
        self._keys = np.zeros((layers, self.blocks, block_floats), np.float32)
        self._values = np.zeros((layers, self.blocks, block_floats), np.float32)
        populate(self._keys)
        populate(self._values)
        self._plan: AttentionPlan
        self._nodes: list[Any] = []

    @classmethod
    def connect(
        cls, model: Any, head_shape: tuple[int, int] | None, score_cap: float, kv_bytes: int, threads: int
    ) -> SharedAttention:
        """Make the paged attention nodes of ``model`` call the kernel. ``head_shape`` as ``read_head_shape`` found it;
        ``score_cap`` is the soft cap of attention scores, 0 where there is none.

        Raises KernelMissingError, with the model unchanged, when the kernel cannot do that here."""
        shape, windows = read_attention(model, head_shape, score_cap)
        attention = cls(load_kernel(), shape, windows, kv_bytes, threads)
        attention._nodes = replace_attention(model, attention.run)
        return attention

    def close(self) -> None:
        """Once the model does not run any more."""
        cut_off(self._nodes)

    def copy_block(self, source: int, target: int) -> None:
        for cache in (self._keys, self._values):
            cache[:, target] = cache[:, source]

    def export_blocks(self, blocks: list[int]) -> memoryview:
        layers, _, block_floats = self._keys.shape
        exported = np.empty((2, layers, len(blocks), block_floats), np.float32)
        for cache, to in zip((self._keys, self._values), exported, strict=True):
            np.take(cache, blocks, axis=1, out=to)
        return exported.reshape(-1).view(np.uint8).data

    def import_blocks(self, data: bytes, count: int, first: int, blocks: list[int]) -> None:
        layers, _, block_floats = self._keys.shape
        check_size(data, 2 * layers * count * block_floats * 4)
        exported = np.frombuffer(data, np.float32).reshape(2, layers, count, block_floats)
        for cache, source in zip((self._keys, self._values), exported, strict=True):
            cache[:, blocks] = source[:, first : first + len(blocks)]

    def prepare(self, spans: list[BlockSpan]) -> dict[str, NDArray[Any]]:
        self._plan = plan_attention(spans, BLOCK_SIZE, self._tile_tokens, CHUNK_BLOCKS)
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
                self._windows[layer],
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
