"""How much of its prompts a batch is expected to take from the engine's cache. Pure."""

from __future__ import annotations

from gristmill.storage.records import BatchRecord, UnfinishedBatch


def planned_reuse(batch: BatchRecord | UnfinishedBatch) -> float | None:
    """The share of the prompt tokens that rows are expected to take from the engine's cache, None where there is no
    plan. Rows that get another's answer ask nothing, so their tokens, like everyone's on average, do not count."""
    plan = batch.plan
    if plan is None or not batch.total or not plan.estimated_prompt_tokens or plan.estimated_computed_tokens is None:
        return None
    asked = plan.estimated_prompt_tokens * (1 - (plan.deduplicated or 0) / batch.total)
    return max(0.0, 1 - plan.estimated_computed_tokens / asked) if asked > 0 else None
