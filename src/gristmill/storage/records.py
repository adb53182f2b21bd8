"""What is stored: plain typed records, independent of any database."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from gristmill.wire.batch import BatchError, BatchPlan, BatchProgress
from gristmill.wire.json import encode

#: Column values to change, by column name.
Changes = dict[str, Any]

#: A batch in one of these never changes again.
TERMINAL_STATUSES = ("completed", "failed", "expired", "cancelled")
UNFINISHED_STATUSES = ("validating", "in_progress", "finalizing", "cancelling")


#: After so long, a key may be used for another request.
KEY_LIFETIME_SECONDS = 24 * 3600


class Stage(Enum):
    """Where an unfinished batch stands, by what it takes from the machine that works on it."""

    VALIDATION = "validation"
    EXECUTION = "execution"
    #: Its rows are done, it was cancelled, or its window is over: only its files are to be written.
    ENDING = "ending"


def file_blob(file_id: str) -> str:
    """Where a file's bytes are in the blob store."""
    return f"files/{file_id}"


def part_blob(part_id: str) -> str:
    return f"parts/{part_id}"


class FileRecord(msgspec.Struct, frozen=True):
    """Its bytes are the blob ``file_blob(id)``; times are Unix seconds."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None
    #: Whose it is; here and below None: nobody's, made where there were no keys.
    key_id: str | None = None


class UploadRecord(msgspec.Struct, frozen=True):
    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file_lifetime: int | None = None
    file_id: str | None = None
    key_id: str | None = None


class PartRecord(msgspec.Struct, frozen=True):
    id: str
    upload_id: str
    bytes: int
    created_at: int


class BlobWrite(NamedTuple):
    """A blob that ``owner`` was about to write; ``freed``: it was given up a day ago, and its bytes freed."""

    path: str
    owner: str
    freed: bool


class WebhookRecord(msgspec.Struct, frozen=True):
    """Whom a batch's end is told: ``secret`` signs what is sent, ``target`` is the scheme, host and port of ``url``."""

    url: str
    secret: str
    target: str

    def __repr__(self) -> str:
        return f"WebhookRecord({self.target})"

    __str__ = __repr__


class RunnerReport(msgspec.Struct, frozen=True):
    """How a batch is doing, as told with the heartbeat by whoever works on it. ``last_result_at``, in Unix seconds, is
    when a result was last stored, or its rows began to be run without one; None where no rows are run."""

    progress: BatchProgress = msgspec.field(default_factory=BatchProgress)
    last_result_at: float | None = None


class BatchRecord(msgspec.Struct, frozen=True):
    """``seq`` orders batches by creation and keys their rows. Token sums cover rows with a result."""

    seq: int
    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: int
    expires_at: int
    model: str | None = None
    errors: list[BatchError] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    #: Rows whose engine did not report cached tokens; if any, the batch's figure is unknown.
    unreported_rows: int = 0
    metadata: dict[str, str] | None = None
    #: Body parameters for lines that do not set them themselves.
    defaults: dict[str, Any] | None = None
    output_file_lifetime: int | None = None
    #: Each step is twice the share of the engine.
    priority: int = 0
    #: Since when nobody works on it, because somebody said so; none of a batch that is about to end.
    paused_at: int | None = None
    #: The batch whose unanswered rows this one asks again, and the one that asks this one's.
    retry_of: str | None = None
    retried_by: str | None = None
    reuse_answers: bool = False
    #: Rows answered with the answers of earlier batches.
    reused_answers: int = 0
    #: None before the rows are planned.
    plan: BatchPlan | None = None
    #: Of this batch alone, besides the server's.
    webhook: WebhookRecord | None = None
    key_id: str | None = None
    #: Of whoever works on it, on any server, or of who put it off a moment ago; None where nobody does.
    report: RunnerReport | None = None


class Lease(NamedTuple):
    """The right to work on a batch and to store what comes of it. ``generation`` counts how often the batch has been
    claimed: who lost a batch and claims it again has another lease than before."""

    batch_seq: int
    owner: str
    generation: int


class Claim(NamedTuple):
    """A batch, and the lease on it that was just given."""

    batch: BatchRecord
    lease: Lease


class DeliveryRecord(msgspec.Struct, frozen=True):
    """That a batch has ended, to be told to one webhook. What tells of the same end has the same ``event_id``.

    ``webhook`` None is the server's own, which is not stored. ``target`` groups deliveries by the server they go to, ""
    for the server's own webhook; ``key_id`` is the key that the batch belongs to, None for the server's own webhook.
    ``status`` is pending, delivered or dead; ``attempts`` and ``first_attempt_at`` count from the end, or from when it
    was last asked to be sent again. All times are Unix seconds.
    """

    seq: int
    id: str
    event_id: str
    type: str
    batch_id: str
    created_at: int
    webhook: WebhookRecord | None
    target: str
    status: str = "pending"
    attempts: int = 0
    #: Not before then.
    due_at: float = 0
    first_attempt_at: int | None = None
    last_attempt_at: int | None = None
    #: What the last attempt was answered; None without an answer.
    last_status: int | None = None
    last_error: str | None = None
    key_id: str | None = None


class UnfinishedBatch(NamedTuple):
    """What a batch that has not ended is watched by, of its ``BatchRecord``."""

    id: str
    in_progress_at: int | None
    expires_at: int
    total: int
    completed: int
    failed: int
    paused_at: int | None
    plan: BatchPlan | None
    report: RunnerReport | None = None


class UsedKey(msgspec.Struct, frozen=True):
    """An idempotency key of a request that creates something: ``request`` is a SHA-256 of what was asked, ``answer``
    the JSON that was answered, ``used_at`` Unix seconds."""

    key: str
    request: bytes
    used_at: int
    answer: bytes = b""

    @classmethod
    def of(cls, key: str, call: str, body: bytes, now: int) -> UsedKey:
        return cls(key, hashlib.sha256(call.encode() + b"\0" + body).digest(), now)

    def answered(self, answer: object) -> UsedKey:
        return msgspec.structs.replace(self, answer=encode(answer))


class AccessKey(msgspec.Struct, frozen=True):
    """``secret_hash`` is the SHA-256 of what only the holder of the key has; times are Unix seconds."""

    id: str
    name: str
    #: ``admin``, ``user`` or ``read-only``.
    role: str
    secret_hash: bytes
    created_at: int
    revoked_at: int | None = None
    #: A read-only key sees what belongs to this key.
    made_for: str | None = None
    max_rows: int | None = None
    max_bytes: int | None = None
    max_batches: int | None = None


class ServerRecord(msgspec.Struct, frozen=True):
    """A server that uses the store. ``name`` is its machine's; ``models`` are the names that requests may ask it for,
    ``endpoints`` the paths whose requests its engine answers; ``started_at`` is Unix seconds by its own clock."""

    id: str
    name: str
    version: str
    engine: str
    models: list[str]
    endpoints: list[str]
    started_at: float

    def serves(self, model: str | None, endpoint: str) -> bool:
        """``model`` None: any."""
        return endpoint in self.endpoints and (model is None or model in self.models)


class LoginSession(msgspec.Struct, frozen=True):
    """A browser that has given a key; ``token_hash`` is the SHA-256 of its cookie."""

    token_hash: bytes
    key_id: str
    expires_at: int


class AuditEntry(msgspec.Struct, frozen=True):
    """Who (``key_id``; None: nobody known) did what, to which object, from which address, and how it was answered."""

    at: int
    action: str
    key_id: str | None = None
    target: str | None = None
    address: str | None = None
    status: int | None = None


class RecordPage(NamedTuple):
    """One page of a newest-first or oldest-first list."""

    records: list[Any]
    has_more: bool
