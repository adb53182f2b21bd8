"""What a planned job costs in tokens and in money, as far as that can be told before an engine has seen it. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from gristmill.planning.job_plan import JobPlan
from gristmill.planning.prefix_groups import PrefixGroup

#: Bytes of UTF-8 a token of English text has, about, with today's tokenizers.
USUAL_BYTES_PER_TOKEN = 4.0


class TokenBill(msgspec.Struct, frozen=True):
    """``sent``: prompt tokens of all rows; ``computed``: those left for the engine, in planned order and with a prefix
    cache; ``output``: at most, by the limits that rows set (None where some set none), or as estimated."""

    sent: int
    computed: int
    output: int | None


class Prices(NamedTuple):
    """What a hosted API takes for a million tokens, in ``currency``; zeros where that is not known."""

    prompt: float = 0.0
    output: float = 0.0
    currency: str = "USD"

    def cost(self, prompt_tokens: int, output_tokens: int) -> float | None:
        """With every prompt token charged; None where no price is known."""
        if not (self.prompt or self.output):
            return None
        return (prompt_tokens * self.prompt + output_tokens * self.output) / 1e6

    def told(self, amount: float) -> str:
        """ "USD 1,234.50"; of less than one, with two significant digits."""
        return f"{self.currency} {amount:,.2f}" if amount >= 1 or not amount else f"{self.currency} {amount:.2g}"

    @property
    def text(self) -> str:
        of_prompt, of_output = (f"{self.currency} {price:,g}" for price in (self.prompt, self.output))
        return f"{of_prompt} a million prompt tokens, {of_output} a million output tokens"


def token_bill(
    plan: JobPlan, bytes_per_token: float = USUAL_BYTES_PER_TOKEN, output_tokens: int | None = None
) -> TokenBill:
    """``output_tokens`` where more is known of them than the rows' limits."""
    if output_tokens is None and plan.limited_rows == len(plan.order):
        output_tokens = plan.output_limit
    sent, computed = plan.prompt_size / bytes_per_token, plan.computed_size / bytes_per_token
    return TokenBill(round(sent), round(computed), output_tokens)


class GroupBill(msgspec.Struct, frozen=True):
    """A group of the prefix tree in tokens; ``depth`` counts the groups around it."""

    depth: int
    rows: int
    shared: int
    own_per_row: float
    saved: int
    first_line: int

    @property
    def level(self) -> int:
        """Counted from 1."""
        return self.depth + 1


def group_bills(groups: list[PrefixGroup], bytes_per_token: float = USUAL_BYTES_PER_TOKEN) -> list[GroupBill]:
    """In depth-first order, as ``groups`` are."""
    depths: list[int] = []
    bills = []
    for group in groups:
        depths.append(0 if group.parent is None else depths[group.parent] + 1)
        own = group.prompt_size / group.rows - group.shared_size
        bills.append(
            GroupBill(
                depths[-1],
                group.rows,
                round(group.shared_size / bytes_per_token),
                round(own / bytes_per_token, 1),
                round(group.saved_size / bytes_per_token),
                group.first_line,
            )
        )
    return bills
