"""A model that embeds, on OpenVINO: inputs side by side, the shorter ones padded, then pooled.

Two kinds of graph: one exported for it (``last_hidden_state`` of encoders and decoders, or the whole pipeline of
sentence-transformers as ``sentence_embedding``), and that of a model that writes, cut off before its LM head.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.embeddings.embedding_runner import Pooling
from gristmill.engines.embedded.embeddings.pooling import pool
from gristmill.extras import require
from gristmill.models.ir_folder import INPUT_VECTORS, TOKEN_VECTORS
from gristmill.user_error import UserError


def pools_itself(model: Any) -> bool:
    return any(INPUT_VECTORS in port.get_names() for port in model.outputs)


class EncoderModel:
    padded = True

    def __init__(self, core: Any, model: Any, pooling: Pooling | None, threads: int) -> None:
        """``pooling`` None: the graph pools itself. ``threads`` 0: all of this process's. Raises UserError for a graph
        with inputs that are not known."""
        ov = require("openvino")
        self._pooling = pooling
        config = {
            # As for models that write: f32 is exact, and the fastest where there is no AMX.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
            "INFERENCE_NUM_THREADS": str(threads or len(os.sched_getaffinity(0))),
        }
        self._names = [port.get_any_name() for port in model.inputs]
        self._types = {name: _numpy_type(ov, model.input(name)) for name in self._names}
        if unknown := set(self._names) - set(_fed(np.zeros((1, 1), np.int64), [1])):
            raise UserError(f"The model has inputs that this engine does not know: {', '.join(sorted(unknown))}.")
        self._stateful = bool(model.get_sinks())
        compiled = core.compile_model(model, "CPU", config)
        self._request = compiled.create_infer_request()
        self._output = _output(compiled, pooling)
        self.size = int(self._output.get_partial_shape()[-1].get_length())

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """As in EmbeddingRunner; the vectors are the caller's own."""
        lengths = [len(tokens) for tokens in inputs]
        padded = np.zeros((len(inputs), max(lengths)), np.int64)
        for row, tokens in zip(padded, inputs, strict=True):
            row[: len(tokens)] = tokens
        fed = _fed(padded, lengths)
        if self._stateful:
            self._request.reset_state()
        self._request.infer({name: fed[name].astype(self._types[name]) for name in self._names})
        vectors: NDArray[np.float32] = self._request.get_tensor(self._output).data
        if self._pooling is None:
            return vectors.copy()
        return pool(vectors.reshape(len(inputs), max(lengths), self.size), lengths, self._pooling).copy()


def _fed(tokens: NDArray[np.int64], lengths: list[int]) -> dict[str, NDArray[np.int64]]:
    """All that a graph may ask for. ``lengths``: tokens of each row that are an input's own."""
    rows, columns = tokens.shape
    places = np.arange(columns, dtype=np.int64)
    mask = (places < np.array(lengths)[:, None]).astype(np.int64)
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(tokens),
        "position_ids": np.broadcast_to(places, tokens.shape),
        "beam_idx": np.arange(rows, dtype=np.int64),
    }


def _output(compiled: Any, pooling: Pooling | None) -> Any:
    wanted = (INPUT_VECTORS,) if pooling is None else TOKEN_VECTORS
    return next(port for port in compiled.outputs if not port.get_names().isdisjoint(wanted))


def _numpy_type(ov: Any, port: Any) -> Any:
    return np.int32 if port.get_element_type() == ov.Type.i32 else np.int64


def cut_before_head(ov: Any, model: Any, head: Any) -> None:
    """Let a graph that writes give the vectors of its tokens, as ``last_hidden_state``: what its LM head, a matrix
    product, takes."""
    hidden = head.input_value(0)
    for result in list(model.get_results()):
        model.remove_result(result)
    hidden.set_names({TOKEN_VECTORS[0]})
    model.add_results([ov.opset13.result(hidden)])
    model.validate_nodes_and_infer_types()
