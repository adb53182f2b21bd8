"""Other names for an engine's models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gristmill.user_error import UserError


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
