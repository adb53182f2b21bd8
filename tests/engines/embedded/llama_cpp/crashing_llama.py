"""A loader whose process ends like a GPU's backend does where its memory is full: by a line, and by SIGABRT."""

from __future__ import annotations

import os
from typing import Any

from gristmill.engines.embedded.llama_cpp import loading
from gristmill.engines.embedded.model_runner import LoadedModel, Span
from gristmill.engines.embedded.scheduling.step_abort import StepAbort

#: Sequences of a step that there is memory for.
ROOM = 3


def load_model(source: str, options: dict[str, Any]) -> LoadedModel:
    loaded = loading.load_model(source, options)
    forward = loaded.runner.forward

    def limited(spans: list[Span[Any]], abort: StepAbort) -> Any:
        if len(spans) > ROOM:
            os.write(
                2, b"CUDA error: out of memory\n  current device: 0, in function alloc\nggml-cuda.cu:88: CUDA error\n"
            )
            os.abort()
        return forward(spans, abort)

    loaded.runner.forward = limited  # type: ignore[method-assign]
    return loaded
