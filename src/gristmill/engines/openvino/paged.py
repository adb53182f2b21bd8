"""The model as one function of a step's tokens over paged KV blocks.

The only file that uses OpenVINO's paged attention transformation, which sits in a module whose name begins with an
underscore and may change with any release: hence the version check.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.openvino.attention_graph import read_head_shape
from gristmill.engines.openvino.attention_kernel import KernelMissingError
from gristmill.engines.openvino.kv_cache import KvCache, OpenVinoKvCache
from gristmill.engines.openvino.options import AttentionName
from gristmill.engines.openvino.sampled_positions import gather_sampled
from gristmill.engines.openvino.shared_attention import SharedAttention
from gristmill.engines.openvino.span import Span
from gristmill.models.extra import require
from gristmill.user_error import UserError

#: The range of OpenVINO releases this file is tested with: from the first, up to and without the second.
TESTED = ((2026, 4), (2026, 5))


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

    def __init__(self, folder: Path, kv_bytes: int, threads: int = 0, attention: AttentionName = "shared") -> None:
        """``threads`` 0: all of this process's. ``notices`` afterwards has what a person should be told: why OpenVINO's
        attention is used though ``attention`` is "shared". Raises UserError when the model cannot be transformed or
        ``kv_bytes`` holds not even one block."""
        ov = require("openvino")
        check_version(ov.__version__)
        core = ov.Core()
        model = core.read_model(folder / "openvino_model.xml")
        head_shape = read_head_shape(model)
        try:
            require("openvino._offline_transformations").paged_attention_transformation(model)
        except (RuntimeError, AttributeError) as error:
            raise UserError(f"The model in '{folder}' cannot run on paged attention: {error}.") from error
        gather_sampled(ov, model)
        threads = threads or len(os.sched_getaffinity(0))
        self.notices: list[str] = []
        shared = None
        if attention == "shared":
            try:
                shared = SharedAttention.connect(model, head_shape, kv_bytes, threads)
                self.notices += [shared.notice] if shared.notice else []
            except KernelMissingError as error:
                self.notices.append(f"Attention is computed by OpenVINO's kernel, which is slower: {error}.")
        self._names = {name for port in model.inputs for name in port.get_names()}
        # Both precisions must agree; f32 is the fastest on CPUs without AMX, and exact.
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # Not the default of 32: 8-bit activations move log-probabilities by up to 0.7.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
            "INFERENCE_NUM_THREADS": str(threads),
        }
        self._compiled = core.compile_model(model, "CPU", config)
        self._request = self._compiled.create_infer_request()
        self._cache: KvCache = shared or OpenVinoKvCache(self._compiled, self._request, kv_bytes)
        self.block_size = self._cache.block_size
        self.blocks = self._cache.blocks
        self.vocabulary = int(self._compiled.outputs[0].partial_shape[-1].get_length())

    def copy_block(self, source: int, target: int) -> None:
        if source != target:
            self._cache.copy_block(source, target)

    def forward(self, spans: list[Span]) -> NDArray[np.float32]:
        """Compute the spans, writing their keys and values. Logits of the wanted positions, shape (samples,
        vocabulary), valid until the next call."""
        begins = itertools.accumulate((len(span.tokens) for span in spans), initial=0)
        sampled = [begin + offset for span, begin in zip(spans, begins, strict=False) for offset in span.samples]
        positions = [np.arange(span.past, span.past + len(span.tokens), dtype=np.int64) for span in spans]
        inputs = self._cache.prepare(spans) | {
            "input_ids": np.concatenate([np.asarray(span.tokens, np.int64) for span in spans]),
            "position_ids": np.concatenate(positions),
            # A step may sample nothing (a chunk of a long prefill), but the graph wants one position.
            "sampled": np.array(sampled or [0], np.int64),
        }
        self._request.infer({name: value for name, value in inputs.items() if name in self._names}, share_inputs=True)
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.reshape(-1, self.vocabulary)
        return logits[: len(sampled)]
