"""The model list."""

from __future__ import annotations

import msgspec


class ModelOffer(msgspec.Struct, omit_defaults=True):
    """Gristmill's own addition: the paths of the endpoints that can be asked of a model, in batches and directly; what
    computes, and what would be faster, where the engine knows."""

    endpoints: list[str]
    computes_on: str | None = None
    advice: str | None = None


class Model(msgspec.Struct):
    id: str
    created: int
    owned_by: str = "gristmill"
    #: Tokens of context, prompt and output together; vLLM's name for it. Null where the engine does not say.
    max_model_len: int | None = None
    #: The model's own name, where ``id`` may be an alias; vLLM's name for it. Null where a server does not say.
    root: str | None = None
    gristmill: ModelOffer | None = None
    object: str = "model"


class ModelList(msgspec.Struct):
    data: list[Model]
    object: str = "list"
