"""What a job shares, and in which order to run it: one pass over its rows, and one over their sorted keys."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.common_prefix import common_prefix
from gristmill.planning.prefix_groups import STEP, PrefixGroup, PrefixGroupTree
from gristmill.planning.prompt_key import is_repeatable, prompt_length, row_key, unreadable_key
from gristmill.planning.row_order import RowOrder
from gristmill.planning.sorted_keys import SortedKeys
from gristmill.wire.line_body import Fields, default_fields

#: Rows that are answered with one row's answer; all of them are held in memory until they are.
_MOST_FOLLOWERS = 10_000


class Duplicates(NamedTuple):
    """Row ``lines[i]`` asks exactly what the earlier row ``originals[i]`` asks, at deterministic settings."""

    lines: array[int]
    originals: array[int]


class JobPlan(NamedTuple):
    """Sizes of prompts are in bytes of UTF-8; in a plan that ``TokenCount`` has made of one, in tokens.

    ``order`` has the lines to run, without duplicates; ``group_ends`` has the places in it after each outermost group;
    ``computed_size`` is what an engine must compute in that order. ``limited_rows`` rows limit their answer,
    to ``output_limit`` tokens together.
    """

    rows: int
    prompt_size: int
    computed_size: int
    longest_prompt: int
    output_limit: int
    limited_rows: int
    groups: list[PrefixGroup]
    order: array[int]
    group_ends: array[int]
    duplicates: Duplicates

    @property
    def in_line_order(self) -> bool:
        """Whether the order to run is the order of the lines, duplicates left out."""
        return all(before < after for before, after in zip(self.order, self.order[1:], strict=False))


class JobPlanner:
    """``add`` every row, then ``plan``. ``folder`` is an empty one, for what does not fit into memory. ``pinned`` are
    fields that the engine sets in every body: they may bring chance into answers, or take it out."""

    def __init__(
        self, endpoint: str, defaults: dict[str, Any] | None, folder: Path, pinned: dict[str, Any] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._defaults = default_fields(defaults)
        self._pinned = default_fields(pinned)
        self._keys = SortedKeys(folder)
        self._prompt_size = 0

    def add(self, line: int, data: bytes, fields: Fields | None) -> None:
        """``data`` is a line of the input that has been checked, ``fields`` those of its body, None where they cannot
        be taken apart; ``line`` counts from 1."""
        try:
            if fields is None:
                key, limit = unreadable_key(data)
            else:
                key, limit = row_key(self._endpoint, fields | self._pinned, self._defaults)
        except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
            # Whatever is odd about a row is for the row to fail with, never for the whole job.
            key, limit = unreadable_key(data)
        self._prompt_size += prompt_length(key)
        self._keys.add(key, line, limit)

    def plan(self) -> JobPlan:
        tree = PrefixGroupTree(self._prompt_size)
        order = RowOrder()
        duplicates = Duplicates(array("q"), array("q"))
        rows = same = computed = longest = output_limit = limited = followers = 0
        before, before_prompt, original = b"", 0, 0
        for key, line, limit in self._keys:
            rows += 1
            prompt = prompt_length(key)
            if key == before and is_repeatable(key, prompt) and followers < _MOST_FOLLOWERS:
                followers += 1
                duplicates.lines.append(line)
                duplicates.originals.append(original)
                continue
            same = common_prefix(before, key, same)
            shared = min(same, prompt, before_prompt)
            order.add(line, limit, tree.add(line, prompt, shared), shared >= STEP)
            computed += prompt - shared
            longest = max(longest, prompt)
            output_limit += limit
            limited += limit > 0
            before, before_prompt, original, followers = key, prompt, line, 0
        groups, lines = tree.groups(), order.lines()
        return JobPlan(rows, self._prompt_size, computed, longest, output_limit, limited, groups, *lines, duplicates)
