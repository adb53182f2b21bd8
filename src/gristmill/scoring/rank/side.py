"""A cut as it is written, and which side of it counts. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.user_error import UserError

_CUT = re.compile(r"\s*(\w+)\s*(>=|>|<=|<)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*")


class Side(NamedTuple):
    """``text`` as it was given. Scores times ``sign`` are wanted from ``cut`` on."""

    text: str
    sign: int
    cut: float


def parse_cut(text: str, name: str) -> Side:
    """``score >= 8``, where the score is called ``name`` or score. Raises UserError."""
    found = _CUT.fullmatch(text)
    try:
        value = float(found[3]) if found is not None else math.nan
    except ValueError:
        value = math.nan
    if found is None or math.isnan(value):
        raise UserError(f"The cut '{text}' cannot be read: write it like '{name} >= 8', with >=, >, <= or <.")
    if found[1] not in (name, "score"):
        raise UserError(f"The cut '{text}' is about '{found[1]}', but the score is called '{name}'.")
    sign = 1 if found[2].startswith(">") else -1
    cut = sign * value
    return Side(text.strip(), sign, cut if found[2].endswith("=") else math.nextafter(cut, math.inf))


def check_cut(side: Side, scale: Sequence[float]) -> None:
    """Raises UserError where the ``scale`` says beforehand on which side of the cut every score is."""
    ends = sorted(value * side.sign for value in scale)
    if ends[0] < side.cut <= ends[-1]:
        return
    every = "every row" if side.cut <= ends[0] else "no row"
    raise UserError(
        f"The cut '{side.text}' takes {every}: scores are from {min(scale):g} to {max(scale):g}. Choose one between."
    )
