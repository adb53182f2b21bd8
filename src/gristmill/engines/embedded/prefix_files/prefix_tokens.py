"""Token ids of prefixes as arrays, which compare a thousand times faster than lists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


def pack_tokens(tokens: list[int] | Tokens) -> bytes:
    """As prefix files have them: little-endian int32."""
    return np.asarray(tokens, "<i4").tobytes()


def unpack_tokens(packed: bytes) -> Tokens:
    return np.frombuffer(packed, "<i4").astype(np.int32)


def common_tokens(one: Tokens, other: Tokens) -> int:
    """How many leading tokens two sequences share."""
    least = min(len(one), len(other))
    differs = one[:least] != other[:least]
    first = int(differs.argmax()) if least else 0
    return first if least and differs[first] else least
