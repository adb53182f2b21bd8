"""A plan with its sizes in tokens: counted row by row, in the order to run in. Pure."""

from __future__ import annotations

from array import array
from collections import Counter

from gristmill.common_prefix import common_prefix
from gristmill.planning.job_plan import JobPlan
from gristmill.planning.prefix_groups import TOKEN_STEP, PrefixGroupTree
from gristmill.planning.token_bill import USUAL_BYTES_PER_TOKEN

_TOKEN_BYTES = array("I").itemsize


class TokenCount:
    """``add`` the rows of ``plan.order``, in that order; ``counted`` is then the plan in tokens."""

    def __init__(self, plan: JobPlan) -> None:
        self._plan = plan
        self._answered_by = Counter(plan.duplicates.originals)
        self._tree = PrefixGroupTree(plan.prompt_size / USUAL_BYTES_PER_TOKEN, TOKEN_STEP)
        self._sent = self._computed = self._longest = 0
        self._before = b""
        self._shared = 0

    def add(self, line: int, prompts: list[list[int]]) -> None:
        """The token ids of each prompt of a row, in the order in which they are asked: one mostly."""
        size = shared_by_row = 0
        for place, prompt in enumerate(prompts):
            tokens = array("I", prompt).tobytes()
            self._shared = common_prefix(self._before, tokens, self._shared)
            shared = self._shared // _TOKEN_BYTES
            self._computed += len(prompt) - shared
            self._longest = max(self._longest, len(prompt))
            self._before = tokens
            size += len(prompt)
            shared_by_row = shared if place == 0 else shared_by_row
        self._sent += size * (1 + self._answered_by[line])
        self._tree.add(line, size, shared_by_row)

    def counted(self) -> JobPlan:
        return self._plan._replace(
            prompt_size=self._sent,
            computed_size=self._computed,
            longest_prompt=self._longest,
            groups=self._tree.groups(),
        )
