"""Anthropic's Message Batches API: the batch object and the lines of its results. Times are RFC 3339, in UTC."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gristmill.wire.messages import MessageErrorResponse, MessagesRequest

#: Checked when a batch is created; what is in ``params`` is judged when the request runs.
CustomId = Annotated[str, msgspec.Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
MAX_REQUESTS = 100_000


class BatchedMessage(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: CustomId
    params: MessagesRequest


class CreateMessageBatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    requests: Annotated[list[BatchedMessage], msgspec.Meta(min_length=1, max_length=MAX_REQUESTS)]


class MessageBatchCounts(msgspec.Struct):
    """Their sum is the number of requests, at any time."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class MessageBatch(msgspec.Struct):
    id: str
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageBatchCounts
    created_at: str
    expires_at: str
    ended_at: str | None = None
    cancel_initiated_at: str | None = None
    archived_at: str | None = None
    results_url: str | None = None
    type: str = "message_batch"


class MessageBatchPage(msgspec.Struct):
    """Newest first; the ids are cursors, null where there is nothing."""

    data: list[MessageBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class MessageBatchDeleted(msgspec.Struct):
    id: str
    type: str = "message_batch_deleted"


class SucceededResult(msgspec.Struct, tag="succeeded"):
    #: A message, as ``POST /v1/messages`` answers it.
    message: msgspec.Raw


class ErroredResult(msgspec.Struct, tag="errored"):
    error: MessageErrorResponse


class CanceledResult(msgspec.Struct, tag="canceled"):
    pass


class ExpiredResult(msgspec.Struct, tag="expired"):
    pass


class MessageBatchLine(msgspec.Struct):
    """One line of the results."""

    custom_id: str
    result: SucceededResult | ErroredResult | CanceledResult | ExpiredResult
