from __future__ import annotations

from array import array

from gristmill.planning.job_plan import Duplicates, JobPlan
from gristmill.planning.prefix_boxes import LEVEL, drawn, prefix_boxes
from gristmill.planning.prefix_groups import PrefixGroup
from gristmill.planning.token_bill import group_bills


def plan(groups: list[PrefixGroup], size: int) -> JobPlan:
    return JobPlan(100, size, size, 1, 0, 0, groups, array("q"), array("q"), Duplicates(array("q"), array("q")))


def test_a_group_is_drawn_within_the_one_around_it_beside_its_siblings_and_as_wide_as_its_prompts():
    groups = [
        PrefixGroup(None, 400, 0, 60, 60_000, 1),
        PrefixGroup(0, 800, 400, 20, 20_000, 1),
        PrefixGroup(0, 900, 400, 10, 10_000, 3),
        PrefixGroup(None, 500, 0, 30, 30_000, 9),
    ]
    boxes = prefix_boxes(plan(groups, 100_000), group_bills(groups))
    assert [(box.level, box.left, box.width) for box in boxes] == [(1, 0, 60), (2, 0, 20), (2, 20, 10), (1, 60, 30)]
    assert (boxes[0].rows, boxes[0].shared, boxes[0].first_line) == (60, 100, 1)
    tree = drawn(boxes, 100)
    assert tree.height == 3 * LEVEL
    assert [box.label for box in tree.boxes[:2]] == ["all 100 rows", "60 rows share 100 tokens"]


def test_what_is_too_narrow_is_not_drawn_and_what_is_narrow_has_no_text():
    groups = [PrefixGroup(None, 400, 0, 2, 20, 1), PrefixGroup(None, 400, 0, 9, 1_000, 5)]
    boxes = prefix_boxes(plan(groups, 100_000), group_bills(groups))
    assert [box.rows for box in boxes] == [9]
    assert drawn(boxes, 100).boxes[1].label == "" and "9 rows share" in drawn(boxes, 100).boxes[1].tip


def test_of_very_many_groups_those_that_save_most_are_kept():
    groups = [PrefixGroup(None, 400 + number, 0, 2 + number % 7, 100_000, number) for number in range(1_000)]
    boxes = prefix_boxes(plan(groups, 100_000_000), group_bills(groups))
    assert len(boxes) == 300
    assert min(box.saved for box in boxes) >= sorted(bill.saved for bill in group_bills(groups))[-301]
    # In their places: what is left out leaves a gap.
    assert [box.left for box in boxes] == sorted(box.left for box in boxes)
