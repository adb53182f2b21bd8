"""From the vectors of an input's tokens to one vector, as sentence-transformers and llama.cpp pool them. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.embeddings.embedding_runner import Pooling


def pool(hidden: NDArray[np.float32], lengths: list[int], pooling: Pooling) -> NDArray[np.float32]:
    """``hidden``: shape (inputs, tokens, numbers), of which the first ``lengths`` tokens of an input count. Shape
    (inputs, numbers)."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return np.stack([each[length - 1] for each, length in zip(hidden, lengths, strict=True)])
    # Not multiplied with a mask: what stands behind an input's end may be no number.
    return np.stack([each[:length].mean(axis=0) for each, length in zip(hidden, lengths, strict=True)])
