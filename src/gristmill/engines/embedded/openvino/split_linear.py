"""The linear layers of a model by our own kernel (linear.c): bf16 products on AMX, three for each of float32."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.openvino.attention_kernel import Kernel, KernelMissingError, load_kernel
from gristmill.engines.embedded.openvino.shared_attention import cut_off
from gristmill.extras import require

LINEAR = Path(__file__).with_name("linear.c")
#: Of both sizes of a layer; also the least that a thread takes at a time, in outputs.
_MULTIPLE = 32
#: Outputs that a thread takes at a time at most: their weights stay in its cache while it goes through the rows.
_WIDEST = 128
#: Of weights, packed at a time; a multiple of 16.
_PACKED_OUTPUTS = 4096
#: Numbers a cache line.
_ALIGNED = 64
#: Kinds of shapes that are remembered.
_REMEMBERED = 64

Floats = NDArray[np.float32]


class _Matrix(ctypes.Structure):
    """``Matrix`` of linear.c."""

    _fields_ = (("weights", ctypes.c_void_p), ("outputs", ctypes.c_int32))


class _Layer(NamedTuple):
    """A matrix product of the graph, and its weights as they are stored: (outputs, inputs)."""

    node: Any
    weights: Any


class SplitLinears:
    """What the graph calls for its linear layers; those with the same input in one call."""

    def __init__(self, kernel: Kernel, threads: int) -> None:
        """``threads`` compute at once, the caller's among them."""
        self._library = kernel.library
        self.notice, self.build = kernel.notice, kernel.build
        self._threads = threads
        # As for attention: OpenVINO pins the thread that calls ``run``.
        usable = os.sched_getaffinity(0)
        self._pool = ThreadPoolExecutor(max(threads - 1, 1), "linear", lambda: os.sched_setaffinity(0, usable))

        self._nodes: list[Any] = []

    @classmethod
    def connect(cls, model: Any, threads: int) -> SplitLinears:
        """Make the linear layers of ``model`` call the kernel, as far as their weights are stored as floats.

        Raises KernelMissingError, with the model unchanged, when the kernel cannot do that here."""
        groups = _groups(model)
        if not groups:
            raise KernelMissingError("the model's weights are not stored as floats")
        if not amx_is_here():
            raise KernelMissingError("this processor has no AMX")
        kernel = load_kernel(LINEAR)
        if not kernel.library.allowed():
            raise KernelMissingError("this system, or the C compiler, does not let AMX be used")
        linears = cls(kernel, threads)
        node_class = _node_class(linears._nodes)
        while groups:
            layers = groups.pop()
            node = node_class([layers[0].node.input_value(0)], linears.runner(layers), _sizes(layers))
            for output, layer in enumerate(layers):
                layer.node.output(0).replace(node.output(output))
        model.validate_nodes_and_infer_types()
        return linears

    def close(self) -> None:
        """Once the model does not run any more."""
        cut_off(self._nodes)

    def runner(self, layers: list[_Layer]) -> RunGroup:
        """What multiplies by the weights of ``layers``, which have the same input."""
        weights = [self._pack(layer.weights.data) for layer in layers]
        sizes = _sizes(layers)
        matrices = (_Matrix * len(layers))(
            *(_Matrix(each.ctypes.data, size) for each, size in zip(weights, sizes, strict=True))
        )
        inputs = layers[0].weights.get_output_shape(0)[1]
        width = sum(sizes) // (4 * self._threads) // _MULTIPLE * _MULTIPLE
        width = min(max(width, _MULTIPLE), _WIDEST)

        def run(rows: Floats, out: list[Floats]) -> None:
            # ``weights`` are named for the matrices, which only point at them.
            assert weights
            self._run(rows, inputs, matrices, width, out)

        return run

    def _pack(self, weights: NDArray[Any]) -> NDArray[np.uint16]:
        outputs, inputs = weights.shape
        packed = _aligned(2 * outputs * inputs)
        for begin in range(0, outputs, _PACKED_OUTPUTS):
            part = np.ascontiguousarray(weights[begin : begin + _PACKED_OUTPUTS], np.float32)
            target = packed[2 * begin * inputs :]
            self._library.pack(_pointer(part), len(part), inputs, _pointer(target))
        return packed

    def _run(self, rows: Floats, inputs: int, matrices: Any, width: int, out: list[Floats]) -> None:
        """``rows`` and ``out`` are contiguous."""
        taken = ctypes.c_int32(0)
        targets = (ctypes.c_void_p * len(out))(*(each.ctypes.data for each in out))

        def multiply() -> int:
            done: int = self._library.multiply_all(
                _pointer(rows), rows.size // inputs, inputs, matrices, len(out), width, ctypes.byref(taken), targets
            )
            return done

        # The kernel runs without the interpreter's lock.
        others = [self._pool.submit(multiply) for _ in range(self._threads - 1)]
        done = [multiply(), *(other.result() for other in others)]
        if not all(done):
            raise MemoryError("there is no memory for a step's linear layers")


#: Rows, and the arrays that take the results.
RunGroup = Callable[[Floats, list[Floats]], None]


def amx_is_here() -> bool:
    """Whether this processor, as the system shows it, multiplies bf16 by AMX."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {"amx_tile", "amx_bf16", "avx512_bf16"} <= set(flags)


def _groups(model: Any) -> list[list[_Layer]]:
    """The layers that the kernel can compute, those with the same input together."""
    groups: dict[tuple[str, int], list[_Layer]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and (weights := _float_weights(node)) is not None:
            source = node.input_value(0)
            groups.setdefault((source.get_node().get_name(), source.get_index()), []).append(_Layer(node, weights))
    return list(groups.values())


def _float_weights(node: Any) -> Any | None:
    """The constant that a matrix product multiplies by, (outputs, inputs); None where the kernel cannot."""
    attributes = node.get_attributes()
    weights = node.input_value(1).get_node()
    if weights.get_type_name() == "Convert":
        weights = weights.input_value(0).get_node()
    if weights.get_type_name() != "Constant" or attributes["transpose_a"] or not attributes["transpose_b"]:
        return None
    shape = weights.get_output_shape(0)
    if len(shape) != 2 or any(size % _MULTIPLE for size in shape) or not weights.get_element_type().is_real():
        return None
    return weights if weights.get_element_type().size in (2, 4) else None


def _sizes(layers: list[_Layer]) -> tuple[int, ...]:
    """Outputs of each."""
    return tuple(int(layer.weights.get_output_shape(0)[0]) for layer in layers)


def _node_class(made: list[Any]) -> Any:
    """A class for one model, whose nodes are added to ``made``. Once that model runs, OpenVINO clones each node at
    every step, only to learn the shapes of its results (see shared_attention.py): built-in nodes with such results do
    for that, one for each kind."""
    ov = require("openvino")
    opset = require("openvino.opset8")
    last_axis = opset.constant(np.int32(-1))
    known: dict[tuple[Any, ...], Any] = {}

    def shaped(source: Any, sizes: tuple[int, ...]) -> Any:
        kind = (*source.get_shape(), sizes)
        if kind not in known:
            if len(known) >= _REMEMBERED:
                known.clear()
            wide = opset.gather(source, opset.constant(np.zeros(sum(sizes), np.int32)), last_axis)
            known[kind] = opset.variadic_split(wide, last_axis, opset.constant(np.array(sizes, np.int32)))
        return known[kind]

    class SplitLinear(ov.Op):  # type: ignore[misc, name-defined]
        running = False

        def __init__(self, inputs: Any = None, run: RunGroup | None = None, sizes: tuple[int, ...] = ()) -> None:
            # The next line asks for the shapes already.
            self._run, self._sizes = run, sizes
            super().__init__(self, inputs)
            made.append(self)

        def validate_and_infer_types(self) -> None:
            shape = list(self.get_input_partial_shape(0))
            for output, size in enumerate(self._sizes):
                of_output = ov.PartialShape([*shape[:-1], ov.Dimension(size)])
                self.set_output_type(output, self.get_input_element_type(0), of_output)

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            if SplitLinear.running:
                return shaped(inputs[0], self._sizes)
            return SplitLinear(inputs, self._run, self._sizes)

        def let_go(self) -> None:
            self._run = None
            known.clear()

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            assert self._run
            SplitLinear.running = True
            self._run(inputs[0].data, [each.data for each in outputs])
            return True

        def visit_attributes(self, visitor: Any) -> bool:
            return True

    return SplitLinear


def _aligned(count: int) -> NDArray[np.uint16]:
    """Memory that begins at a cache line."""
    memory = np.empty(count + _ALIGNED, np.uint16)
    return memory[-memory.ctypes.data % _ALIGNED // memory.itemsize :][:count]


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
