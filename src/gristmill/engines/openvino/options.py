"""Options of the embedded engine."""

from __future__ import annotations

from typing import Literal

import msgspec

from gristmill.engines.options import parse_options

#: Which kernel computes attention.
AttentionName = Literal["shared", "openvino"]


class OpenVinoOptions(msgspec.Struct, frozen=True):
    """How much the embedded engine may use, and how it computes."""

    #: Memory for the KV cache, in GiB; it bounds how many tokens rows and reusable prefixes may hold together.
    kv_cache_gb: float = 2.0
    #: Rows computed at the same time.
    max_rows: int = 64
    #: Tokens computed in one step; longer prefills are cut into chunks of it.
    step_tokens: int = 2048
    #: CPU threads; 0: all that this process may use.
    threads: int = 0
    #: shared: our own kernel, which reads a shared prefix once for all rows; it needs a C compiler at the first start.
    #: openvino: OpenVINO's, which is also used where ours cannot be.
    attention: AttentionName = "shared"
    #: How a GGUF's quantized weights are stored for OpenVINO. f16 keeps log-probabilities within 0.02 of a float32
    #: reference. q8_0 is half the size on disk and about as fast; rounding to it moved log-probabilities by up to 0.3.
    weights: Literal["f16", "q8_0"] = "f16"

    @staticmethod
    def parse(options: dict[str, str]) -> OpenVinoOptions:
        return parse_options(OpenVinoOptions, options, "openvino")
