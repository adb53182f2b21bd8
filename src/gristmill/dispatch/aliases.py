"""Other names for an engine's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import msgspec

from gristmill.engines.errors import unknown_model
from gristmill.engines.protocol import AnyRequest, ForwardRequest
from gristmill.user_error import UserError

R = TypeVar("R", bound=AnyRequest)


def check_aliases(aliases: Mapping[str, str], models: Sequence[str]) -> None:
    """``aliases`` maps each to the model it stands for. Raises UserError where there is none, or it would hide one."""
    for alias, model in aliases.items():
        if alias in models:
            raise UserError(f"The alias '{alias}' is the name of a model itself: choose another one.")
        if model not in models:
            listed = ", ".join(models)
            raise UserError(
                f"The alias '{alias}' stands for '{model}', which the engine does not have. It has: {listed}."
            )


def by_own_name(request: R, models: Mapping[str, str]) -> R:
    """Asking for the model by its own name; ``models`` maps each name that there is to that. Raises EngineError."""
    if request.model not in models:
        raise unknown_model(request.model, tuple(models))
    model = models[request.model]
    if model == request.model:
        return request
    if isinstance(request, ForwardRequest):
        return cast(R, request.renamed(model))
    return msgspec.structs.replace(request, model=model)
