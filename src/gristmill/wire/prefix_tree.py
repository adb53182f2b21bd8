"""The picture of what a job's rows share, as it is stored with a batch."""

from __future__ import annotations

import msgspec


class PrefixBox(msgspec.Struct, frozen=True):
    """A group of rows whose prompts begin alike: ``rows`` rows share ``shared`` tokens, and have ``own_per_row`` more
    each on average; ``saved`` are computed once instead of once a row.

    ``left`` and ``width`` are percent of all prompts together: a group lies within the one around it, which is one
    ``level`` above. The outermost have level 1.
    """

    level: int
    left: float
    width: float
    rows: int
    shared: int
    own_per_row: float
    saved: int
    first_line: int
