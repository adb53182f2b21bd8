"""The labels that a score is one of, and what each is worth. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from gristmill.user_error import UserError
from gristmill.wire.errors import clip

_RANGE = re.compile(r"(-?[0-9]{1,15})\.\.(-?[0-9]{1,15})")
#: As many as a request for label scores may name.
_MOST_LABELS = 1000
#: Characters of one label. Every label is computed for every row.
_LONGEST_LABEL = 100
#: Beyond it, sums of scores would lose their last digits.
_LARGEST_VALUE = 1e9


class Scale(NamedTuple):
    """``labels`` in the order of their ``values``, of which at least two differ."""

    labels: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        return self.told()

    def told(self, backwards: bool = False) -> str:
        """For a prompt: "a whole number from 0 to 10", "one of low, high"."""
        labels = self.labels[::-1] if backwards else self.labels
        if self._are_whole_numbers():
            return f"a whole number from {labels[0]} to {labels[-1]}"
        return f"one of {', '.join(labels)}"

    def _are_whole_numbers(self) -> bool:
        first = self.values[0]
        return all(label == f"{first + place:.0f}" for place, label in enumerate(self.labels)) and first == int(first)


def labels_begin_differently(scale: Scale) -> bool:
    """Whether the first character tells the labels apart: of 0..9, but not of 0..10."""
    return len({label[0] for label in scale.labels}) == len(scale.labels)


def parse_scale(text: str) -> Scale:
    """``0..10``, or names from worst to best: ``no,maybe,yes`` (worth 0, 1, 2), ``no=0,maybe=0.3,yes=1``. Labels may be
    worth the same, but not all of them. Raises UserError."""
    if (found := _RANGE.fullmatch(text.strip())) is not None:
        first, last = int(found[1]), int(found[2])
        if not 0 < last - first < _MOST_LABELS:
            raise UserError(
                f"The scale '{text}' must go from a smaller to a larger number, like 0..10, with at most "
                f"{_MOST_LABELS:,} numbers."
            )
        return of_numbers(range(first, last + 1))
    parts = [part.strip() for part in text.split(",")]
    labels = [part.partition("=")[0].strip() for part in parts]
    if len(labels) > _MOST_LABELS:
        raise UserError(f"The scale has {len(labels):,} labels: use {_MOST_LABELS:,} at most.")
    for label in labels:
        if len(label) > _LONGEST_LABEL:
            raise UserError(
                f"The label '{label[:30]}...' of the scale has {len(label):,} characters: use {_LONGEST_LABEL} at "
                "most, and say in the rubric what each label means."
            )
        if not label.isprintable():
            raise UserError(f"The label {label!r} of the scale cannot be printed: choose another name.")
    if len(labels) < 2 or not all(labels) or len(set(labels)) < len(labels):
        raise UserError(
            f"The scale '{clip(text)}' is neither a range like 0..10 nor different names from worst to best, like "
            "no,yes."
        )
    return _of_values(labels, [_value(part, place) for place, part in enumerate(parts)])


def of_numbers(numbers: range) -> Scale:
    """Raises UserError for fewer than two, and for more than a request may name."""
    if not 2 <= len(numbers) <= _MOST_LABELS or numbers.step < 0:
        raise UserError(f"A scale has 2 to {_MOST_LABELS:,} numbers, from the smallest to the largest: {numbers!r}.")
    return _of_values(list(map(str, numbers)), list(map(float, numbers)))


def _of_values(labels: Sequence[str], values: Sequence[float]) -> Scale:
    for label, value in zip(labels, values, strict=True):
        if not abs(value) <= _LARGEST_VALUE:
            raise UserError(
                f"The label '{label}' of the scale is worth {value:g}: give it a number from -{_LARGEST_VALUE:g} to "
                f"{_LARGEST_VALUE:g}."
            )
    if min(values) == max(values):
        raise UserError(
            f"All labels of the scale are worth {values[0]:g}, so that every row would get the same score: give at "
            "least two of them different values, like no=0,yes=1."
        )
    ordered = sorted(zip(values, labels, strict=True))
    return Scale(tuple(label for _, label in ordered), tuple(value for value, _ in ordered))


def _value(part: str, place: int) -> float:
    label, given, value = part.partition("=")
    if not given:
        return float(place)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise UserError(
            f"The value of the label '{label.strip()}' of the scale is not a number: '{clip(value.strip())}'. Write a "
            "scale with values like no=0,maybe=0.3,yes=1."
        )
    return number
