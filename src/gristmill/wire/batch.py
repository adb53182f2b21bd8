"""Batches: the object, the request that creates one, and the lines of its files."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gristmill.wire.files import ExpiresAfter, ObjectId
from gristmill.wire.webhooks import BatchWebhook, WebhookRequest

Priority = Annotated[int, msgspec.Meta(ge=-5, le=5)]


class CreateBatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    input_file_id: ObjectId
    endpoint: str
    completion_window: str
    metadata: dict[str, msgspec.Raw] | None = None
    output_expires_after: ExpiresAfter | None = None
    #: Gristmill's own addition: body parameters for lines that do not set them; messages come before a line's own.
    defaults: dict[str, Any] | None = None
    #: Another: each step is twice the share of the engine, where batches run at the same time.
    priority: Priority = 0
    #: Another: take the answers of earlier batches that set this, too, for rows that ask the same without chance.
    reuse_answers: bool = False
    #: Another: whom to tell that the batch has ended.
    webhook: WebhookRequest | None = None


class ChangeBatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What may be changed of a batch that has rows to run."""

    priority: Priority


class BatchError(msgspec.Struct):
    """One reason why an input file was rejected; ``line`` counts from 1, null for the file as a whole."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(msgspec.Struct):
    data: list[BatchError]
    object: str = "list"


class RequestCounts(msgspec.Struct):
    """Lines that were never run (expired, cancelled) are in ``total`` only."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(msgspec.Struct):
    #: Null where the engine did not report it for every row.
    cached_tokens: int | None = 0


class OutputTokensDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct):
    """Named as in the Responses API (input, output), also for chat batches."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchPlan(msgspec.Struct):
    """What was found out about a batch's rows before they ran. Tokens are estimated from the bytes of the prompts."""

    #: Prefixes of some length that several rows share, those within others counted too.
    prefix_groups: int | None = None
    #: Rows that ask exactly what another row asks, without chance, and are answered with its answer.
    deduplicated: int | None = None
    estimated_prompt_tokens: int | None = None
    #: Those left to compute for an engine that reuses prefixes.
    estimated_computed_tokens: int | None = None
    #: At most, by the limits that rows set; null where some set none.
    estimated_output_tokens: int | None = None
    #: Why the rows could not be planned; they run in the order of their lines then, and all else is null.
    failure: str | None = None
    #: That the results may not fit on the disk, with what they may need and what was free; null where they will.
    disk_warning: str | None = None


class BatchProgress(msgspec.Struct):
    """Gristmill's own addition to the batch object. Rates, reuse and the time left are measured while it runs."""

    rows_per_second: float | None = None
    tokens_per_second: float | None = None
    #: Cached prompt tokens over prompt tokens.
    reused_share: float | None = None
    eta_seconds: float | None = None
    #: The ends of a 90 % interval, if the rest is like what has been measured; the upper one is null where the pace has
    #: varied too much to tell.
    eta_low_seconds: float | None = None
    eta_high_seconds: float | None = None
    #: Why nothing is moving, in words ("paused", where somebody said so); null while all is well.
    waiting_for: str | None = None
    plan: BatchPlan | None = None
    #: Rows answered with the answers of earlier batches.
    reused_answers: int = 0
    #: Of the engine, which batches may share.
    requests_in_flight: int | None = None
    priority: int = 0
    #: Unix seconds; null where it is not paused.
    paused_at: int | None = None
    #: The batch whose unanswered rows this one asks again, and the one that asks this one's.
    retry_of: str | None = None
    retried_by: str | None = None
    #: Whom the batch tells of its end, besides the server's own webhook.
    webhook: BatchWebhook | None = None


class Batch(msgspec.Struct):
    """Every key is always sent, null or not: raw-JSON clients index them."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: int
    model: str | None = None
    errors: BatchErrors | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = msgspec.field(default_factory=RequestCounts)
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None
    gristmill: BatchProgress | None = None
    object: str = "batch"


class LineResponse(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct):
    code: str
    message: str


class OutputLine(msgspec.Struct):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: LineResponse | None
    error: LineError | None
