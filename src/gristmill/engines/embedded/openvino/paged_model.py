"""The model as one function of a step's tokens over paged KV blocks.

The only file that uses OpenVINO's paged attention transformation, which sits in a module whose name begins with an
underscore and may change with any release: hence the version check.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.kv.paged_memory import Copy, PagedMemory
from gristmill.engines.embedded.openvino.attention_kernel import KernelMissingError
from gristmill.engines.embedded.openvino.kv_cache import BlockSpan, KvCache, OpenVinoKvCache
from gristmill.engines.embedded.openvino.rotary_factors import settle_factors
from gristmill.engines.embedded.openvino.shared_attention import SharedAttention, read_head_shape, set_windows
from gristmill.engines.embedded.openvino.split_linear import SplitLinears
from gristmill.engines.embedded.prefix_files.prefix_file import Slice
from gristmill.engines.embedded.processor import processor_digest
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.extras import require
from gristmill.user_error import UserError

Attention = Literal["shared", "openvino"]
Precision = Literal["f32", "bf16x3", "bf16"]

#: The range of OpenVINO releases this file is tested with: from the first, up to and without the second.
TESTED = ((2026, 4), (2026, 5))

#: KV blocks that are exported together.
_SLICE_BLOCKS = 4


def check_version(version: str) -> None:
    """Raises UserError for an OpenVINO that this file was not tested with."""
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        major = minor = 0
    if not TESTED[0] <= (major, minor) < TESTED[1]:
        raise UserError(
            f"The embedded engine works with OpenVINO {TESTED[0][0]}.{TESTED[0][1]}, but {version} is installed: "
            "run pip install 'gristmill[embedded]' to get the right one."
        )


class PagedModel:
    """Holds the compiled model and the KV cache. ``forward`` is not reentrant."""

    def __init__(
        self,
        folder: Path,
        kv_bytes: int,
        threads: int = 0,
        attention: Attention = "shared",
        windows: Sequence[int] = (),
        long_context: bool = False,
        score_cap: float = 0.0,
        precision: Precision = "f32",
    ) -> None:
        """``threads`` 0: all of this process's. ``notices`` afterwards has what a person should be told: why OpenVINO's
        attention is used though ``attention`` is "shared". Raises UserError when the model cannot be transformed or
        ``kv_bytes`` holds not even one block, KernelMissingError when it cannot be computed in ``precision`` here.
        ``windows``: how far the layers' attention reaches back, where the graph does not say. ``long_context``: with
        the rotary factors for long sequences. ``score_cap``: the soft cap of attention scores, 0 where there is none.
        """
        ov = require("openvino")
        check_version(ov.__version__)
        core = ov.Core()
        model = core.read_model(folder / "openvino_model.xml")
        settle_factors(model, long_context)
        head_shape = read_head_shape(model)
        try:
            require("openvino._offline_transformations").paged_attention_transformation(model)
        except (RuntimeError, AttributeError) as error:
            raise UserError(f"The model in '{folder}' cannot run on paged attention: {error}.") from error
        gather_sampled(ov, model)
        set_windows(model, windows)
        threads = threads or len(os.sched_getaffinity(0))
        self.notices: list[str] = []
        shared = None
        if attention == "shared":
            try:
                shared = SharedAttention.connect(model, head_shape, score_cap, kv_bytes, threads)
                self.notices += [shared.notice] if shared.notice else []
                weakref.finalize(self, shared.close).atexit = False
            except KernelMissingError as error:
                self.notices.append(f"Attention is computed by OpenVINO's kernel, which is slower: {error}.")
        if score_cap and shared is None:
            self.notices.append(
                f"OpenVINO's attention leaves out the soft cap of attention scores ({score_cap:g}) that this model was "
                "made with: its answers are not quite its own."
            )
        computed_in: str = precision
        if precision == "bf16x3":
            linears = SplitLinears.connect(model, threads)
            computed_in += f" by linear.c {linears.build}"
            self.notices += [linears.notice] if linears.notice else []
            weakref.finalize(self, linears.close).atexit = False
        self._names = {name for port in model.inputs for name in port.get_names()}
        # Both must agree where attention is OpenVINO's; ours is in f32 whatever comes in.
        hint = "bf16" if precision == "bf16" else "f32"
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "KV_CACHE_PRECISION": hint,
            "PERFORMANCE_HINT": "LATENCY",
            # Not the default of 32: 8-bit activations move log-probabilities by up to 0.7.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
            "INFERENCE_NUM_THREADS": str(threads),
        }
        self._compiled = core.compile_model(model, "CPU", config)
        self._request = self._compiled.create_infer_request()
        #: Tokens and sampled positions of the last step that was computed.
        self._computed = (0, 0)
        self._cache: KvCache = shared or OpenVinoKvCache(self._compiled, self._request, kv_bytes)
        self.block_size = self._cache.block_size
        self.blocks = self._cache.blocks
        # The folder's name says how a GGUF was converted.
        computing = f"{computed_in} of {folder.name}"
        computing += ", long context" * long_context
        self.kv_format = f"OpenVINO {ov.__version__} {computing}, {self._cache.layout}, {processor_digest()}"
        self.slice_tokens = _SLICE_BLOCKS * self.block_size
        self.vocabulary = int(self._compiled.outputs[0].partial_shape[-1].get_length())

    def new_memory(self) -> PagedMemory:
        return PagedMemory(self.block_size, self.blocks)

    def make_moves(self, moves: list[Copy]) -> None:
        for source, target in moves:
            if source != target:
                self._cache.copy_block(source, target)

    def export_kv(self, place: list[int], begin: int, end: int) -> memoryview:
        return self._cache.export_blocks(place[begin // self.block_size : -(-end // self.block_size)])

    def import_kv(self, place: list[int], piece: Slice, begin: int, end: int) -> None:
        size = self.block_size
        if piece.begin % size:
            raise ValueError(f"it begins at token {piece.begin}, within a block")
        count = -(-(piece.end - piece.begin) // size)
        # From the first block that is not shared with others: whole ones, and of the last the part that counts.
        first, last = begin // size, -(-end // size)
        self._cache.import_blocks(piece.data, count, first - piece.begin // size, place[first:last])

    def forward(self, spans: list[BlockSpan], abort: StepAbort | None = None) -> NDArray[np.float32]:
        """Compute the spans, writing their keys and values. Logits of the wanted positions, shape (samples,
        vocabulary), valid until the next call. Raises StepAborted."""
        begins = itertools.accumulate((len(span.tokens) for span in spans), initial=0)
        sampled = [begin + offset for span, begin in zip(spans, begins, strict=False) for offset in span.samples]
        # A step may sample nothing (a chunk of a long prefill), but the graph wants one position.
        self._compute(spans, sampled or [0], abort or StepAbort())
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.reshape(-1, self.vocabulary)
        return logits[: len(sampled)]

    def _compute(self, spans: list[BlockSpan], sampled: list[int], abort: StepAbort) -> None:
        positions = [np.arange(span.past, span.past + len(span.tokens), dtype=np.int64) for span in spans]
        inputs = self._cache.prepare(spans) | {
            "input_ids": np.concatenate([np.asarray(span.tokens, np.int64) for span in spans]),
            "position_ids": np.concatenate(positions),
            "sampled": np.array(sampled, np.int64),
        }
        taken = {name: value for name, value in inputs.items() if name in self._names}
        abort.begin(lambda: self._request.start_async(taken, share_inputs=True), self._request.cancel)
        try:
            self._request.wait()
        except RuntimeError:
            # A cancelled step has no error of its own type in Python. What fails otherwise will fail again.
            if not abort.asked:
                raise
            cancelled = True
        else:
            cancelled = False
        finally:
            # Whoever asks from here on must not cancel what follows.
            abort.end()
        if cancelled:
            self._forget_shapes(spans)
            raise StepAborted
        self._computed = (sum(len(span.tokens) for span in spans), len(sampled))

    def _forget_shapes(self, aborted: list[BlockSpan]) -> None:
        """Compute next to nothing of a step that was aborted.

        OpenVINO finds the shapes of nodes ahead of computing them, and does not look again while a node's inputs are as
        large as when it was last computed. So for a step as large as the last that was computed, nodes would keep the
        shapes of the aborted one. A step of other sizes makes it find all of them anew."""
        tokens, sampled = (1 if last != 1 else 2 for last in self._computed)
        self._compute(_first_tokens(aborted, tokens), [0] * sampled, StepAbort())


def _first_tokens(spans: list[BlockSpan], count: int) -> list[BlockSpan]:
    """The beginning of a step of at least so many tokens."""
    taken: list[BlockSpan] = []
    for span in spans:
        left = count - sum(len(each.tokens) for each in taken)
        if left:
            taken.append(span._replace(tokens=span.tokens[:left], samples=()))
    return taken


def gather_sampled(ov: Any, model: Any) -> None:
    """Give a paged ``model`` the input ``sampled`` (i64, positions of the step), and logits of those positions only.

    Keys and values of the last layer are needed for every token, but what follows its attention is not: in prefill,
    where one position of a row is sampled, that saves most of a layer, and the LM head, a fifth of a small model's
    work. Where the graph behind the attention is not as we know it, only the head is spared. Raises UserError for a
    model without a head.
    """
    sampled = ov.opset13.parameter([-1], ov.Type.i64, name="sampled")
    sampled.output(0).set_names({"sampled"})
    edges = _edges_behind(model, _projection_of_last_attention(model)) or [lm_head(model).input(0)]
    for edge in edges:
        gathered = ov.opset13.gather(edge.get_source_output(), sampled, ov.opset13.constant(np.int64(0)))
        edge.replace_source_output(gathered.output(0))
    model.add_parameters([sampled])
    model.validate_nodes_and_infer_types()


def lm_head(model: Any) -> Any:
    """The matrix product before the logits. Raises UserError where there is none."""
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        if not node.inputs():
            raise UserError("The model has no LM head that the embedded engine knows (a MatMul before its output).")
        node = node.input_value(0).get_node()
    return node


def _projection_of_last_attention(model: Any) -> Any | None:
    """The first matrix product that takes the last attention's output."""
    nodes = model.get_ordered_ops()
    attention = [node for node in nodes if node.get_type_name() == "PagedAttentionExtension"]
    behind = {attention[-1].get_name()} if attention else set()
    for node in nodes:
        if any(port.get_node().get_name() in behind for port in node.input_values()):
            if node.get_type_name() == "MatMul":
                return node
            behind.add(node.get_name())
    return None


def _edges_behind(model: Any, first: Any | None) -> list[Any]:
    """The inputs through which positions reach ``first`` and all that follows it; empty where one of them is neither
    a constant nor shaped like the hidden state (positions, 1, width), as a computed shape would be."""
    if first is None:
        return []
    edges = [first.input(0)]
    behind = {first.get_name()}
    for node in model.get_ordered_ops():
        inside = [port.get_node().get_name() in behind for port in node.input_values()]
        if not any(inside):
            continue
        behind.add(node.get_name())
        for known, edge in zip(inside, node.inputs(), strict=True):
            source = edge.get_source_output()
            if known or _constant(source.get_node()):
                continue
            shape = source.get_partial_shape()
            if shape.rank.is_dynamic or len(shape) != 3 or shape[0].is_static:
                return []
            edges.append(edge)
    return edges


def _constant(node: Any) -> bool:
    return node.get_type_name() == "Constant" or (
        len(node.inputs()) > 0 and all(_constant(port.get_node()) for port in node.input_values())
    )
