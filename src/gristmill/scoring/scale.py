"""The labels that a score is one of, and what each is worth. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from gristmill.user_error import UserError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
#: As many as a request for label scores may name.
_MOST_LABELS = 1000


class Scale(NamedTuple):
    """``labels`` in the order of their ``values``."""

    labels: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        return self.told()

    def told(self, backwards: bool = False) -> str:
        """For a prompt: "a whole number from 0 to 10", "one of low, high"."""
        labels = self.labels[::-1] if backwards else self.labels
        if self.labels == tuple(map(str, range(int(self.values[0]), int(self.values[-1]) + 1))):
            return f"a whole number from {labels[0]} to {labels[-1]}"
        return f"one of {', '.join(labels)}"


def labels_begin_differently(scale: Scale) -> bool:
    """Whether the first character tells the labels apart: of 0..9, but not of 0..10."""
    return len({label[0] for label in scale.labels}) == len(scale.labels)


def parse_scale(text: str) -> Scale:
    """``0..10``, or names from worst to best: ``no,maybe,yes`` (worth 0, 1, 2), ``no=0,maybe=0.3,yes=1``. Raises
    UserError."""
    if (found := _RANGE.fullmatch(text.strip())) is not None:
        first, last = int(found[1]), int(found[2])
        if not 0 < last - first < _MOST_LABELS:
            raise UserError(f"The scale '{text}' must go from a smaller to a larger number, {_MOST_LABELS} at most.")
        return of_numbers(range(first, last + 1))
    parts = [part.strip() for part in text.split(",")]
    labels = [part.partition("=")[0].strip() for part in parts]
    if len(labels) < 2 or not all(labels) or len(set(labels)) < len(labels) or len(labels) > _MOST_LABELS:
        raise UserError(
            f"The scale '{text}' is neither a range like 0..10 nor different names from worst to best, like no,yes."
        )
    try:
        values = [float(part.partition("=")[2]) if "=" in part else float(place) for place, part in enumerate(parts)]
    except ValueError:
        raise UserError(f"A value in the scale '{text}' is no number: write it like no=0,maybe=0.3,yes=1.") from None
    ordered = sorted(zip(values, labels, strict=True))
    return Scale(tuple(label for _, label in ordered), tuple(value for value, _ in ordered))


def of_numbers(numbers: range) -> Scale:
    """Raises UserError for fewer than two, and for more than a request may name."""
    if not 2 <= len(numbers) <= _MOST_LABELS or numbers.step < 0:
        raise UserError(f"A scale has 2 to {_MOST_LABELS} numbers, from the smallest to the largest: {numbers!r}.")
    return Scale(tuple(map(str, numbers)), tuple(map(float, numbers)))
