"""Where the projector of a model is: the GGUF file that makes images into what it reads."""

from __future__ import annotations

from pathlib import Path

from gristmill.models.locate import LocalModel
from gristmill.user_error import UserError
from gristmill.user_path import user_path

#: A choice of the option ``projector``.
NO_PROJECTOR = "none"


def projector_of(model: LocalModel, chosen: str) -> Path | None:
    """``chosen``: a file, "none", or empty: the model's own. Raises UserError where the file that was chosen is not
    there."""
    if chosen == NO_PROJECTOR:
        return None
    if not chosen:
        return model.projector
    named = user_path(chosen)
    if not named.is_file():
        raise UserError(f"There is no projector file '{named}': name a GGUF file (mmproj) with -O projector=.")
    return named
