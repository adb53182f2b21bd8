"""The model as one function of a step's tokens over paged KV blocks.

The only file that uses OpenVINO's paged attention transformation, which sits in a module whose name begins with an
underscore and may change with any release: hence the version check.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.models.extra import require
from gristmill.user_error import UserError

#: The range of OpenVINO releases this file is tested with: from the first, up to and without the second.
TESTED = ((2026, 4), (2026, 5))


class Span(NamedTuple):
    """``tokens`` that come after ``past`` others, in ``blocks`` (those of the past first).

    ``samples`` lists the offsets within ``tokens`` whose next-token logits are wanted.
    """

    tokens: list[int]
    past: int
    blocks: list[int]
    samples: tuple[int, ...]


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

    def __init__(self, folder: Path, kv_bytes: int, threads: int = 0) -> None:
        """Raises UserError when the model cannot be transformed or ``kv_bytes`` holds not even one block."""
        ov = require("openvino")
        check_version(ov.__version__)
        self._ov = ov
        core = ov.Core()
        model = core.read_model(folder / "openvino_model.xml")
        try:
            require("openvino._offline_transformations").paged_attention_transformation(model)
        except (RuntimeError, AttributeError) as error:
            raise UserError(f"The model in '{folder}' cannot run on paged attention: {error}.") from error
        self._names = {name for port in model.inputs for name in port.get_names()}
        _gather_before_head(ov, model)
        # Both precisions must agree; f32 is the fastest on CPUs without AMX, and exact.
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # Not the default of 32: 8-bit activations move log-probabilities by up to 0.7.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        if threads:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        self._compiled = core.compile_model(model, "CPU", config)
        self._request = self._compiled.create_infer_request()
        self._caches: list[NDArray[Any]] = []
        self.block_size = 0
        self.blocks = 0
        self._make_caches(kv_bytes)
        self.vocabulary = int(self._compiled.outputs[0].partial_shape[-1].get_length())

    def _make_caches(self, kv_bytes: int) -> None:
        ports = [port for port in self._compiled.inputs if "_cache." in port.any_name]
        shapes = [[dim.get_length() for dim in list(port.partial_shape)[1:]] for port in ports]
        block_bytes = sum(
            int(np.prod(shape)) * port.element_type.size for shape, port in zip(shapes, ports, strict=True)
        )
        self.block_size = shapes[0][1]
        self.blocks = kv_bytes // block_bytes
        if not self.blocks:
            raise UserError(f"The KV cache is too small: one block of this model needs {block_bytes / 2**30:.4f} GiB.")
        for shape, port in zip(shapes, ports, strict=True):
            # The memory is only reserved here: the system gives it page by page, as blocks are first written.
            tensor = self._ov.Tensor(port.element_type, self._ov.Shape([self.blocks, *shape]))
            self._request.set_tensor(port.any_name, tensor)
            self._caches.append(tensor.data)

    def copy_block(self, source: int, target: int) -> None:
        if source != target:
            for cache in self._caches:
                cache[target] = cache[source]

    def forward(self, spans: list[Span]) -> NDArray[np.float32]:
        """Compute the spans, writing their keys and values. Logits of the wanted positions, shape (samples,
        vocabulary), valid until the next call."""
        size = self.block_size
        past = np.array([span.past for span in spans], np.int32)
        lengths = np.array([len(span.tokens) for span in spans], np.int32)
        begins = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        used = -(-(past + lengths) // size)
        inputs: dict[str, NDArray[Any]] = {
            "input_ids": np.concatenate([np.asarray(span.tokens, np.int64) for span in spans]),
            "position_ids": np.concatenate(
                [np.arange(p, p + n, dtype=np.int64) for p, n in zip(past, lengths, strict=True)]
            ),
            "past_lens": past,
            "subsequence_begins": begins,
            "block_indices": np.concatenate(
                [np.asarray(span.blocks[:n], np.int32) for span, n in zip(spans, used, strict=True)]
            ),
            "block_indices_begins": np.concatenate(([0], np.cumsum(used))).astype(np.int32),
            "max_context_len": np.array((past + lengths).max(), np.int32),
            "sampled": np.array(
                [begin + offset for span, begin in zip(spans, begins, strict=False) for offset in span.samples],
                np.int64,
            ),
        }
        # A step may sample nothing (a chunk of a long prefill), but the graph wants one position.
        wanted = len(inputs["sampled"])
        if not wanted:
            inputs["sampled"] = np.zeros(1, np.int64)
        self._request.infer(
            {name: value for name, value in inputs.items() if name in self._names or name == "sampled"},
            share_inputs=True,
        )
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.reshape(-1, self.vocabulary)
        return logits[:wanted]


def _gather_before_head(ov: Any, model: Any) -> None:
    """Project only the sampled positions: the LM head is a fifth of the work of a small model."""
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        if not node.inputs():
            raise UserError("The model has no LM head that the embedded engine knows (a MatMul before its output).")
        node = node.input_value(0).get_node()
    sampled = ov.opset13.parameter([-1], ov.Type.i64, name="sampled")
    sampled.output(0).set_names({"sampled"})
    gathered = ov.opset13.gather(node.input_value(0), sampled, ov.opset13.constant(np.int64(0)))
    node.input(0).replace_source_output(gathered.output(0))
    model.add_parameters([sampled])
    model.validate_nodes_and_infer_types()
