"""What a ranking's folder keeps in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from gristmill.user_error import UserError

Kept = TypeVar("Kept")


def read_stored(path: Path, kind: type[Kept]) -> Kept | None:
    """None where there is none yet. Raises UserError where it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        raise UserError(
            f"{path} was damaged: delete the folder {path.parent} to do again what was done in it."
        ) from None
