"""What the proxy guesses of all rows, as it is kept: what follows depends on every bit of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.job_folder import write_whole
from gristmill.extras import require
from gristmill.scoring.rank.stored import read_stored
from gristmill.wire.batch import Batch

_FILE = "guesses.json"


class Guesses(msgspec.Struct):
    """``values`` by row, None where nothing is guessed. ``scored``: so many rows of the pilot had a score by then.
    ``batches``: what they took."""

    scored: int
    values: list[float | None]
    batches: list[Batch]

    @classmethod
    def of(cls, scored: int, found: Any, batches: Sequence[Batch]) -> Guesses:
        """``found``: an array, NaN where nothing is guessed."""
        return cls(scored, [None if math.isnan(value) else value for value in found.tolist()], list(batches))

    def array(self) -> Any:
        numpy = require("numpy", "score")
        return numpy.array([math.nan if value is None else value for value in self.values])

    def keep(self, folder: Path) -> None:
        write_whole(folder / _FILE, msgspec.json.encode(self))


def stored_guesses(folder: Path) -> Guesses | None:
    """None where there are none yet. Raises UserError where they cannot be read."""
    return read_stored(folder / _FILE, Guesses)
