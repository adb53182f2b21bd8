"""What a GGUF's header says of how its model embeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gristmill.engines.embedded.embeddings.embedding_runner import Pooling

#: llama.cpp's ``enum llama_pooling_type``, but for 0, which is none.
_POOLINGS: dict[object, Pooling] = {1: "mean", 2: "cls", 3: "last"}
_RANKS = 4


class GgufPooling(NamedTuple):
    """``pooling``: None where the file says nothing. ``causal``: each token sees only those before it, so that the
    model may write. ``ranks``: it says how well a text answers a question, as a single number."""

    pooling: Pooling | None
    causal: bool
    ranks: bool


def gguf_pooling(metadata: Mapping[str, object]) -> GgufPooling:
    architecture = metadata.get("general.architecture")
    found = metadata.get(f"{architecture}.pooling_type")
    causal = metadata.get(f"{architecture}.attention.causal") is not False
    return GgufPooling(_POOLINGS.get(found), causal, found == _RANKS)
