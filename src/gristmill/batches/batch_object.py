"""The batch object of the API, of what is stored of a batch and what its runner knows."""

from __future__ import annotations

import msgspec

from gristmill.notify import target
from gristmill.storage.records import BatchRecord, WebhookRecord
from gristmill.wire.batch import (
    Batch,
    BatchErrors,
    BatchProgress,
    BatchUsage,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
)
from gristmill.wire.webhooks import BatchWebhook


def present(record: BatchRecord, progress: BatchProgress | None = None, with_secret: bool = False) -> Batch:
    """``with_secret``: with that of its webhook, for the one answer that shows it."""
    known = {name: getattr(record, name) for name in _KNOWN_FIELDS}
    known["webhook"] = None if record.webhook is None else _webhook(record.webhook, with_secret)
    progress = msgspec.structs.replace(progress or BatchProgress(), **known)
    shared = {name: getattr(record, name) for name in _SHARED_FIELDS}
    return Batch(
        **shared,
        errors=BatchErrors(record.errors) if record.errors else None,
        request_counts=RequestCounts(record.total, record.completed, record.failed),
        usage=_usage(record),
        gristmill=progress,
    )


def _webhook(webhook: WebhookRecord, with_secret: bool) -> BatchWebhook:
    return BatchWebhook(target.shown(webhook.url), webhook.secret if with_secret else msgspec.UNSET)


#: But for the webhook, whose secret is not shown.
_KNOWN_FIELDS = set(BatchProgress.__struct_fields__) & set(BatchRecord.__struct_fields__) - {"webhook"}
_SHARED_FIELDS = (set(Batch.__struct_fields__) & set(BatchRecord.__struct_fields__)) - {"errors"}


def _usage(record: BatchRecord) -> BatchUsage | None:
    if record.in_progress_at is None:
        return None
    return BatchUsage(
        input_tokens=record.input_tokens,
        input_tokens_details=InputTokensDetails(None if record.unreported_rows else record.cached_tokens),
        output_tokens=record.output_tokens,
        output_tokens_details=OutputTokensDetails(),
        total_tokens=record.input_tokens + record.output_tokens,
    )
