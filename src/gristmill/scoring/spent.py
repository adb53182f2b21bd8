"""What batches took: time and tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gristmill.wire.batch import Batch


class Spent(NamedTuple):
    """``rows`` that were answered or failed; tokens, ``cached`` None where an engine did not report it; ``seconds``
    from the creation of each batch to its end, one at least; rows answered with another's answer
    (``deduplicated``), or an earlier batch's (``reused``)."""

    rows: int
    prompt: int
    cached: int | None
    output: int
    seconds: int
    deduplicated: int
    reused: int


def spent_on(batches: Sequence[Batch]) -> Spent:
    extra = [batch.gristmill for batch in batches if batch.gristmill is not None]
    usages = [batch.usage for batch in batches if batch.usage is not None]
    cached = [usage.input_tokens_details.cached_tokens for usage in usages]
    known = [each for each in cached if each is not None]
    return Spent(
        rows=sum(batch.request_counts.completed + batch.request_counts.failed for batch in batches),
        prompt=sum(usage.input_tokens for usage in usages),
        cached=sum(known) if len(known) == len(cached) else None,
        output=sum(usage.output_tokens for usage in usages),
        seconds=max(
            sum((batch.completed_at or 0) - batch.created_at for batch in batches if batch.completed_at is not None), 1
        ),
        deduplicated=sum(each.plan.deduplicated or 0 for each in extra if each.plan is not None),
        reused=sum(each.reused_answers for each in extra),
    )
