"""The model list."""

from __future__ import annotations

import msgspec


class Model(msgspec.Struct):
    id: str
    created: int
    owned_by: str = "gristmill"
    object: str = "model"


class ModelList(msgspec.Struct):
    data: list[Model]
    object: str = "list"
