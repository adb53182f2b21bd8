"""The tables. Migrations in ``migrations/versions`` make them; this is what queries are written against."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

#: SQLite numbers rows by itself only where the key is exactly INTEGER.
Sequence = BigInteger().with_variant(Integer, "sqlite")

files = Table(
    "files",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    #: A deleted file's row stays, so that its id remains a valid cursor; ``erased`` once its bytes are gone too.
    Column("deleted", Boolean, nullable=False, default=False),
    Column("erased", Boolean, nullable=False, default=False),
    Column("key_id", Text),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("file_lifetime", BigInteger),
    Column("file_id", Text),
    Column("key_id", Text),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("upload_id", Text, ForeignKey("uploads.id"), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

#: Blobs that are being written and that no record names yet.
blob_writes = Table(
    "blob_writes",
    metadata,
    Column("path", Text, primary_key=True),
    Column("owner", Text, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    #: Of the access key, or empty: two callers may choose the same.
    Column("key_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("answer", LargeBinary, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("endpoint", Text, nullable=False),
    Column("model", Text),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("status", Text, nullable=False, index=True),
    Column("errors", JSON),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("in_progress_at", BigInteger),
    Column("finalizing_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("failed_at", BigInteger),
    Column("expired_at", BigInteger),
    Column("cancelling_at", BigInteger),
    Column("cancelled_at", BigInteger),
    Column("total", BigInteger, nullable=False, default=0),
    Column("completed", BigInteger, nullable=False, default=0),
    Column("failed", BigInteger, nullable=False, default=0),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("cached_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("unreported_rows", BigInteger, nullable=False, default=0),
    Column("metadata", JSON),
    Column("defaults", JSON),
    Column("output_file_lifetime", BigInteger),
    Column("plan", JSON),
    #: What the rows share, as it is drawn; in no list.
    Column("prefix_tree", JSON),
    Column("webhook", JSON),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("paused_at", BigInteger),
    Column("retry_of", Text),
    Column("retried_by", Text),
    Column("reuse_answers", Boolean, nullable=False, server_default="0"),
    Column("reused_answers", BigInteger, nullable=False, server_default="0"),
    #: As for files: the row of a deleted batch stays, as a cursor, and without what it told.
    Column("deleted", Boolean, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    #: Until then nobody else may claim the batch; with no owner, nobody at all.
    Column("lease_until", Float, nullable=False, default=0),
    #: How often the batch has been claimed.
    Column("lease_generation", BigInteger, nullable=False, server_default="0"),
    Column("key_id", Text),
)

rows = Table(
    "rows",
    metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("custom_id", Text, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    #: The line whose answer this row gets, because it asks the same.
    Column("original", BigInteger),
    sqlite_with_rowid=False,
)

#: The order to run in, of batches that do not run in the order of their lines.
run_order = Table(
    "run_order",
    metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

results = Table(
    "results",
    metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("succeeded", Boolean, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("batch_id", Text, nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("webhook", JSON),
    Column("target", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("first_attempt_at", BigInteger),
    Column("last_attempt_at", BigInteger),
    Column("last_status", Integer),
    Column("last_error", Text),
)

#: With the target: those of one that is busy are passed over without a look at the table.
Index("webhook_deliveries_due", webhook_deliveries.c.status, webhook_deliveries.c.due_at, webhook_deliveries.c.target)

#: Of an ended batch: a few of the lines of its result files, by which the others are found.
result_places = Table(
    "result_places",
    metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    #: Whether it is a line of the output file, or of the error file.
    Column("succeeded", Boolean, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, nullable=False),
    Column("input_offset", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Who may call. A revoked key stays, so that the audit log can name it.
access_keys = Table(
    "access_keys",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("made_for", Text),
    Column("max_rows", BigInteger),
    Column("max_bytes", BigInteger),
    Column("max_batches", BigInteger),
)

login_sessions = Table(
    "login_sessions",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("key_id", Text),
    Column("target", Text),
    Column("address", Text),
    Column("status", Integer),
)

Index("files_of_key", files.c.key_id, files.c.seq)
Index("batches_of_key", batches.c.key_id, batches.c.seq)
Index("files_listed", files.c.deleted, files.c.purpose, files.c.seq)

_follows = rows.c.original.is_not(None)
Index("rows_original", rows.c.batch, rows.c.original, sqlite_where=_follows, postgresql_where=_follows)

_failed = ~results.c.succeeded
Index("results_failed", results.c.batch, results.c.line, sqlite_where=_failed, postgresql_where=_failed)
