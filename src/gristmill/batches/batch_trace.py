"""A batch as spans, under the names of OpenTelemetry's conventions for generative AI: one for the whole, one for each
row that is sampled. None holds prompts, answers, ``custom_id`` or the words of an error.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

import msgspec

from gristmill.inference.answer import Answer
from gristmill.storage.records import BatchRecord
from gristmill.telemetry.spans import SpanId, Spans
from gristmill.wire.errors import ApiError
from gristmill.wire.json import encode
from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

_OPERATIONS = {
    CHAT: "chat",
    RESPONSES: "chat",
    "/v1/messages": "chat",
    COMPLETIONS: "text_completion",
    EMBEDDINGS: "embeddings",
}
_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class BatchTrace:
    """Of one batch, whoever works on it: after a restart its spans belong to the same trace. ``provider`` is the name
    of the engine."""

    def __init__(self, spans: Spans, batch: BatchRecord, provider: str) -> None:
        self._spans = spans
        self._id = SpanId.of(batch.id)
        self._operation = _OPERATIONS.get(batch.endpoint, batch.endpoint.rpartition("/")[2])
        self._about: dict[str, str] = {
            "gen_ai.provider.name": provider,
            "gristmill.batch.id": batch.id,
            "gristmill.batch.endpoint": batch.endpoint,
        }
        if batch.model is not None:
            self._about["gen_ai.request.model"] = batch.model
        self._model = batch.model or ""

    def samples(self, custom_id: str) -> bool:
        return self._spans.samples(custom_id)

    async def row(self, line: int, asked: Awaitable[Answer | ApiError]) -> Answer | ApiError:
        """What ``asked`` comes to, with a span of it; none where it was stopped."""
        began = time.time_ns()
        outcome = await asked
        attributes: dict[str, str | int | list[str]] = {
            **self._about, "gen_ai.operation.name": self._operation, "gristmill.row.line": line,
        }  # fmt: skip
        if isinstance(outcome, Answer):
            attributes |= _answered(outcome)
        else:
            attributes["error.type"] = str(outcome.status)
        self._spans.record(
            self._named(self._operation), began, time.time_ns(), attributes,
            parent=self._id, failed=isinstance(outcome, ApiError), remote=True,
        )  # fmt: skip
        return outcome

    def ended(self, batch: BatchRecord, status: str) -> None:
        """The batch has come to its end, now, with ``status``."""
        attributes: dict[str, str | int] = {
            **self._about,
            "gen_ai.operation.name": "batch",
            "gristmill.batch.status": status,
            "gristmill.batch.rows": batch.total,
            "gristmill.batch.rows_succeeded": batch.completed,
            "gristmill.batch.rows_failed": batch.failed,
            "gen_ai.usage.input_tokens": batch.input_tokens,
            "gen_ai.usage.output_tokens": batch.output_tokens,
        }
        if not batch.unreported_rows:
            attributes["gen_ai.usage.cache_read.input_tokens"] = batch.cached_tokens
        began = batch.created_at * 10**9
        self._spans.record(
            self._named("batch"), began, time.time_ns(), attributes, own=self._id, failed=status == "failed"
        )

    def _named(self, operation: str) -> str:
        return f"{operation} {self._model}".rstrip()


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] = []


def _answered(answer: Answer) -> dict[str, int | list[str]]:
    found: dict[str, int | list[str]] = {
        "gen_ai.usage.input_tokens": answer.prompt_tokens,
        "gen_ai.usage.output_tokens": answer.completion_tokens,
    }
    if answer.cached_tokens is not None:
        found["gen_ai.usage.cache_read.input_tokens"] = answer.cached_tokens
    try:
        body = msgspec.json.decode(encode(answer.body), type=_Body)
    except msgspec.MsgspecError:
        return found
    # A server's own words for it might be anything.
    reasons = [choice.finish_reason for choice in body.choices if choice.finish_reason in _FINISH_REASONS]
    if reasons:
        found["gen_ai.response.finish_reasons"] = [reason for reason in reasons if reason]
    return found
