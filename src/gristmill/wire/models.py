"""The model list."""

from __future__ import annotations

import msgspec


class Model(msgspec.Struct):
    id: str
    created: int
    owned_by: str = "gristmill"
    #: Tokens of context, prompt and output together; vLLM's name for it. Null where the engine does not say.
    max_model_len: int | None = None
    #: The model's own name, where ``id`` may be an alias; vLLM's name for it. Null where a server does not say.
    root: str | None = None
    object: str = "model"


class ModelList(msgspec.Struct):
    data: list[Model]
    object: str = "list"
