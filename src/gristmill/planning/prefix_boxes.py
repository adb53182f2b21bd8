"""The prefix tree of a job as boxes to draw. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.planning.job_plan import JobPlan
from gristmill.planning.token_bill import GroupBill
from gristmill.wire.prefix_tree import PrefixBox

#: Heights in pixels: of a level of the tree, boxes and the gap below them.
LEVEL, _BOX = 30, 28
#: Groups narrower than this share of the page (in percent) are not drawn, and such boxes have no room for a text.
_LEAST, _LEAST_WITH_TEXT = 0.05, 3.0
#: Boxes beyond are not kept: those that save least.
_MOST = 300
_ALL_HUE, _HUES = 215, (212, 168, 32, 280, 340, 100)


class DrawnBox(NamedTuple):
    """Left and width in percent, the others in pixels; ``tip`` says all, ``label`` is empty without room for it."""

    left: float
    width: float
    top: int
    height: int
    hue: int
    label: str
    tip: str


class DrawnTree(NamedTuple):
    boxes: list[DrawnBox]
    height: int


def prefix_boxes(plan: JobPlan, bills: Sequence[GroupBill]) -> list[PrefixBox]:
    """A box a group, under the group around it, as wide as its rows' prompts. ``bills`` are those of the plan's
    groups."""
    scale = 100 / max(plan.prompt_size, 1)
    begins: list[float] = []
    taken: dict[int | None, float] = {}
    boxes = []
    for group, bill in zip(plan.groups, bills, strict=True):
        around = 0.0 if group.parent is None else begins[group.parent]
        begin = taken.get(group.parent, around)
        width = group.prompt_size * scale
        begins.append(begin)
        taken[group.parent] = begin + width
        if width >= _LEAST:
            drawn = (round(begin, 3), round(width, 3), bill.rows, bill.shared, bill.own_per_row, bill.saved)
            boxes.append(PrefixBox(bill.level, *drawn, bill.first_line))
    if len(boxes) > _MOST:
        kept = set(sorted(range(len(boxes)), key=lambda index: -boxes[index].saved)[:_MOST])
        boxes = [box for index, box in enumerate(boxes) if index in kept]
    return boxes


def drawn(boxes: Sequence[PrefixBox], rows: int) -> DrawnTree:
    """``rows``: all of the job's, which the first box stands for."""
    everything = f"all {rows:,} rows"
    found = [DrawnBox(0, 100, 0, _BOX, _ALL_HUE, everything, everything)]
    for index, box in enumerate(boxes):
        label = f"{box.rows:,} rows share {box.shared:,} tokens"
        tip = f"{label}; {box.own_per_row:,g} more a row; {box.saved:,} saved; from line {box.first_line:,}"
        room = box.width >= _LEAST_WITH_TEXT
        width = round(max(box.width - 0.05, 0.03), 3)
        hue = _HUES[index % len(_HUES)]
        found.append(DrawnBox(box.left, width, box.level * LEVEL, _BOX, hue, label if room else "", tip))
    return DrawnTree(found, (max((box.level for box in boxes), default=0) + 1) * LEVEL)
