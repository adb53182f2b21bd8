"""Gemma 3's text model as an OpenVINO graph, made from a GGUF file, whose architecture OpenVINO's own reader refuses.

The graph is a stateful one of the form that the paged attention transformation knows. What is computed follows
llama.cpp's ``src/models/gemma3.cpp`` and transformers' ``modeling_gemma3.py``; in a GGUF the norms' weights have
Gemma's 1 added already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.extras import require
from gristmill.user_error import UserError

ARCHITECTURE = "gemma3"
#: What llama.cpp takes where a file does not say: every sixth layer sees the whole context, the others a window.
_PATTERN = 6
_LOCAL_ROPE_BASE = 10_000.0
#: The 27B model, known by its layers, scales attention by its width and not by a head's.
_LAYERS_27B = 62

Floats = NDArray[np.float32]
#: The weights of a tensor by its name in the file, rows by columns. Raises KeyError for one that is not there.
ReadTensor = Callable[[str], Floats]


class Gemma3Shape(NamedTuple):
    """``windows``: how many tokens each layer's attention reaches back, the token itself included; 0: all."""

    width: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    windows: tuple[int, ...]
    rope_base: float
    rope_scale: float
    local_rope_base: float
    attention_scale: float


def read_shape(metadata: Mapping[str, Any]) -> Gemma3Shape:
    """From the header of the GGUF. Raises UserError for a variant that this graph does not compute."""

    def value(name: str, otherwise: Any = None) -> Any:
        found = metadata.get(f"{ARCHITECTURE}.{name}", otherwise)
        if found is None:
            raise UserError(f"The GGUF file does not say its {ARCHITECTURE}.{name}: pull or convert the model again.")
        return found

    if value("final_logit_softcapping", 0.0):
        raise UserError("OpenVINO's engine does not compute this model's softcapped logits: use --engine llama_cpp.")
    if value("rope.scaling.type", "none") not in ("none", "linear"):
        raise UserError("OpenVINO's engine knows Gemma 3 with linear rope scaling only: use --engine llama_cpp.")
    layers, width, heads = value("block_count"), value("embedding_length"), value("attention.head_count")
    head_size = value("attention.key_length")
    window, pattern = value("attention.sliding_window"), value("attention.sliding_window_pattern", _PATTERN)
    return Gemma3Shape(
        width=width,
        heads=heads,
        kv_heads=value("attention.head_count_kv"),
        head_size=head_size,
        epsilon=value("attention.layer_norm_rms_epsilon"),
        windows=tuple(0 if layer % pattern == pattern - 1 else window for layer in range(layers)),
        rope_base=value("rope.freq_base"),
        rope_scale=1.0 / value("rope.scaling.factor", 1.0),
        local_rope_base=value("rope.freq_base_swa", _LOCAL_ROPE_BASE),
        attention_scale=(width // heads if layers == _LAYERS_27B else head_size) ** -0.5,
    )


def build_graph(shape: Gemma3Shape, tensor: ReadTensor) -> Any:
    """An ``openvino.Model`` with the inputs input_ids, attention_mask, position_ids and beam_idx, and logits."""
    return _Gemma3Graph(shape, tensor).model()


class _Gemma3Graph:
    def __init__(self, shape: Gemma3Shape, tensor: ReadTensor) -> None:
        self._shape = shape
        self._tensor = tensor
        self._ov = require("openvino")
        self._op = require("openvino.opset13")
        self._sinks: list[Any] = []
        self._input_ids = self._parameter("input_ids", [-1, -1], "i64")
        self._attention_mask = self._parameter("attention_mask", [-1, -1], "i64")
        self._position_ids = self._parameter("position_ids", [-1, -1], "i64")
        self._beam_idx = self._parameter("beam_idx", [-1], "i32")
        op = self._op
        self._batch = op.gather(op.shape_of(self._input_ids, "i64"), self._ints([0]), self._ints(0))
        self._global_mask = self._mask(0)
        self._local_mask = self._mask(max(shape.windows))
        self._global_rotation = self._rotation(shape.rope_base, shape.rope_scale)
        self._local_rotation = self._rotation(shape.local_rope_base, 1.0)

    def model(self) -> Any:
        op, shape = self._op, self._shape
        embedding = self._weights("token_embd.weight")
        hidden = op.gather(embedding, self._input_ids, self._ints(0))
        hidden = op.multiply(hidden, self._float(shape.width**0.5))
        for layer in range(len(shape.windows)):
            hidden = self._layer(layer, hidden)
        hidden = self._norm(hidden, "output_norm.weight")
        try:
            head = self._weights("output.weight")
        except KeyError:
            head = embedding
        logits = op.matmul(hidden, head, False, True)
        logits.output(0).set_names({"logits"})
        inputs = [self._input_ids, self._attention_mask, self._position_ids, self._beam_idx]
        return self._ov.Model([op.result(logits)], self._sinks, inputs, ARCHITECTURE)

    def _layer(self, layer: int, hidden: Any) -> Any:
        op, name = self._op, f"blk.{layer}."
        attended = self._attention(layer, self._norm(hidden, name + "attn_norm.weight"))
        hidden = op.add(hidden, self._norm(attended, name + "post_attention_norm.weight"))
        normed = self._norm(hidden, name + "ffn_norm.weight")
        gate = op.gelu(self._linear(normed, name + "ffn_gate.weight"), "tanh")
        up = self._linear(normed, name + "ffn_up.weight")
        fed_forward = self._linear(op.multiply(gate, up), name + "ffn_down.weight")
        return op.add(hidden, self._norm(fed_forward, name + "post_ffw_norm.weight"))

    def _attention(self, layer: int, hidden: Any) -> Any:
        op, shape, name = self._op, self._shape, f"blk.{layer}.attn_"
        rotation = self._local_rotation if shape.windows[layer] else self._global_rotation
        queries = self._heads(self._linear(hidden, name + "q.weight"), shape.heads)
        queries = self._rotate(self._norm(queries, name + "q_norm.weight"), rotation)
        keys = self._heads(self._linear(hidden, name + "k.weight"), shape.kv_heads)
        keys = self._rotate(self._norm(keys, name + "k_norm.weight"), rotation)
        values = self._heads(self._linear(hidden, name + "v.weight"), shape.kv_heads)
        attended = op.scaled_dot_product_attention(
            queries,
            self._cached(layer, "key", keys),
            self._cached(layer, "value", values),
            self._local_mask if shape.windows[layer] else self._global_mask,
            self._float(shape.attention_scale),
        )
        rows = op.transpose(attended, self._ints([0, 2, 1, 3]))
        rows = op.reshape(rows, self._ints([0, 0, shape.heads * shape.head_size]), True)
        return self._linear(rows, name + "output.weight")

    def _heads(self, rows: Any, heads: int) -> Any:
        """(batch, tokens, heads * size) to (batch, heads, tokens, size)."""
        op = self._op
        split = op.reshape(rows, self._ints([0, 0, heads, self._shape.head_size]), True)
        return op.transpose(split, self._ints([0, 2, 1, 3]))

    def _cached(self, layer: int, kind: str, new: Any) -> Any:
        """All keys or values of the sequence, those of a KV head once for each of its query heads."""
        op, shape = self._op, self._shape
        dimensions = [-1, shape.kv_heads, -1, shape.head_size]
        info = require("openvino.op.util").VariableInfo()
        info.data_shape = self._ov.PartialShape(dimensions)
        info.data_type = self._ov.Type.f32
        info.variable_id = f"past_key_values.{layer}.{kind}present.{layer}.{kind}"
        variable = require("openvino.op.util").Variable(info)
        none = op.concat([self._batch, self._ints([shape.kv_heads, 0, shape.head_size])], 0)
        past = op.read_value(op.broadcast(self._float(0), none), variable)
        combined = op.concat([op.gather(past, self._beam_idx, self._ints(0)), new], 2)
        self._sinks.append(op.assign(combined, variable))
        shared_by = shape.heads // shape.kv_heads
        if shared_by == 1:
            return combined
        tokens = op.gather(op.shape_of(combined, "i64"), self._ints([2]), self._ints(0))
        wanted = op.concat(
            [self._batch, self._ints([shape.kv_heads, shared_by]), tokens, self._ints([shape.head_size])], 0
        )
        repeated = op.broadcast(op.unsqueeze(combined, self._ints(2)), wanted, "BIDIRECTIONAL")
        return op.reshape(repeated, self._ints([0, shape.heads, -1, shape.head_size]), True)

    def _mask(self, window: int) -> Any:
        """What is added to the scores, shape (batch, 1, tokens, tokens and past ones): 0 for what a token sees.

        For the graph as it stands; paged attention masks by what it knows of the sequences, and takes this out."""
        op = self._op
        length = op.gather(op.shape_of(self._attention_mask, "i64"), self._ints(1), self._ints(0))
        seen = op.range(self._ints(0), length, self._ints(1), "i64")
        distance = op.subtract(op.unsqueeze(self._position_ids, self._ints(2)), op.unsqueeze(seen, self._ints([0, 1])))
        visible = op.logical_and(
            op.greater_equal(distance, self._ints(0)),
            op.unsqueeze(op.greater(self._attention_mask, self._ints(0)), self._ints(1)),
        )
        if window:
            visible = op.logical_and(visible, op.less(distance, self._ints(window)))
        return op.unsqueeze(op.select(visible, self._float(0), self._float(-np.inf)), self._ints(1))

    def _rotation(self, base: float, scale: float) -> tuple[Any, Any]:
        """Cosine and sine of each position's angles, shape (batch, 1, tokens, head size)."""
        op, shape = self._op, self._shape
        frequencies = scale / base ** (np.arange(0, shape.head_size, 2) / shape.head_size)
        positions = op.unsqueeze(op.convert(self._position_ids, "f32"), self._ints(2))
        row = op.constant(frequencies.astype(np.float32).reshape(1, 1, -1))
        angles = op.matmul(positions, row, False, False)
        both = op.unsqueeze(op.concat([angles, angles], -1), self._ints(1))
        return op.cos(both), op.sin(both)

    def _rotate(self, heads: Any, rotation: tuple[Any, Any]) -> Any:
        op = self._op
        cosine, sine = rotation
        first, second = op.split(heads, self._ints(3), 2).outputs()
        turned = op.concat([op.multiply(second, self._float(-1)), first], -1)
        return op.add(op.multiply(heads, cosine), op.multiply(turned, sine))

    def _norm(self, rows: Any, name: str) -> Any:
        op = self._op
        squares = op.reduce_mean(op.power(rows, self._float(2)), self._ints([-1]), True)
        root = op.sqrt(op.add(squares, self._float(self._shape.epsilon)))
        normed = op.multiply(rows, op.divide(self._float(1), root))
        return op.multiply(normed, op.constant(self._tensor(name).astype(np.float32)))

    def _linear(self, rows: Any, name: str) -> Any:
        return self._op.matmul(rows, self._weights(name), False, True)

    def _weights(self, name: str) -> Any:
        return self._op.convert(self._op.constant(self._tensor(name).astype(np.float16)), "f32")

    def _parameter(self, name: str, dimensions: list[int], kind: str) -> Any:
        parameter = self._op.parameter(dimensions, getattr(self._ov.Type, kind), name=name)
        parameter.output(0).set_names({name})
        return parameter

    def _ints(self, values: int | list[int]) -> Any:
        return self._op.constant(np.array(values, np.int64))

    def _float(self, value: float) -> Any:
        return self._op.constant(np.float32(value))
