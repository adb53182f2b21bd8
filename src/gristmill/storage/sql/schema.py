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
)

from gristmill.storage.sql.any_text import AnyText

metadata = MetaData()

#: The schema of the tables of one batch, in statements; which it is, the database says (``schema_translate_map``).
OF_BATCH = "of_batch"
batch_metadata = MetaData(schema=OF_BATCH)

#: SQLite numbers rows by itself only where the key is exactly INTEGER.
Sequence = BigInteger().with_variant(Integer, "sqlite")

files = Table(
    "files",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", AnyText, nullable=False, unique=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("filename", AnyText, nullable=False),
    Column("purpose", AnyText, nullable=False),
    #: A deleted file's row stays, so that its id remains a valid cursor; ``erased`` once its bytes are gone too.
    Column("deleted", Boolean, nullable=False, default=False),
    Column("erased", Boolean, nullable=False, default=False),
    Column("key_id", AnyText),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("filename", AnyText, nullable=False),
    Column("purpose", AnyText, nullable=False),
    Column("status", AnyText, nullable=False),
    Column("file_lifetime", BigInteger),
    Column("file_id", AnyText),
    Column("key_id", AnyText),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("upload_id", AnyText, ForeignKey("uploads.id"), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

#: Blobs that are being written and that no record names yet.
blob_writes = Table(
    "blob_writes",
    metadata,
    Column("path", AnyText, primary_key=True),
    Column("owner", AnyText, nullable=False),
    #: Its owner was found dead, and no record may name it any more: 0, then when its bytes were freed, by the
    #: database's clock.
    Column("given_up_at", Float),
)

#: Those that use this database, each until ``seen_until`` by its clock.
servers = Table(
    "servers",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("name", AnyText, nullable=False),
    Column("version", AnyText, nullable=False),
    Column("engine", AnyText, nullable=False),
    Column("models", JSON, nullable=False),
    Column("endpoints", JSON, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_until", Float, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    #: Of the access key, or empty: two callers may choose the same.
    Column("key_id", AnyText, primary_key=True),
    Column("key", AnyText, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("answer", LargeBinary, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", AnyText, nullable=False, unique=True),
    Column("endpoint", AnyText, nullable=False),
    Column("model", AnyText),
    Column("input_file_id", AnyText, nullable=False),
    Column("completion_window", AnyText, nullable=False),
    Column("status", AnyText, nullable=False, index=True),
    Column("errors", JSON),
    Column("output_file_id", AnyText),
    Column("error_file_id", AnyText),
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
    Column("retry_of", AnyText),
    Column("retried_by", AnyText),
    Column("reuse_answers", Boolean, nullable=False, server_default="0"),
    Column("reused_answers", BigInteger, nullable=False, server_default="0"),
    #: As for files: the row of a deleted batch stays, as a cursor, and without what it told.
    Column("deleted", Boolean, nullable=False, server_default="0"),
    Column("lease_owner", AnyText),
    #: Until then nobody else may claim the batch; with no owner, nobody at all.
    Column("lease_until", Float, nullable=False, default=0),
    #: How often the batch has been claimed.
    Column("lease_generation", BigInteger, nullable=False, server_default="0"),
    #: What whoever has the lease last told; it holds no longer than the lease.
    Column("report", JSON),
    Column("key_id", AnyText),
)

rows = Table(
    "rows",
    batch_metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("custom_id", AnyText, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    #: The line whose answer this row gets, because it asks the same.
    Column("original", BigInteger),
    sqlite_with_rowid=False,
)

#: The order to run in, of batches that do not run in the order of their lines.
run_order = Table(
    "run_order",
    batch_metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

results = Table(
    "results",
    batch_metadata,
    Column("batch", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("succeeded", Boolean, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("id", AnyText, nullable=False, unique=True),
    Column("event_id", AnyText, nullable=False),
    Column("type", AnyText, nullable=False),
    Column("batch_id", AnyText, nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("webhook", JSON),
    Column("target", AnyText, nullable=False),
    Column("status", AnyText, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("first_attempt_at", BigInteger),
    Column("last_attempt_at", BigInteger),
    Column("last_status", Integer),
    Column("last_error", AnyText),
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
    Column("id", AnyText, nullable=False, unique=True),
    Column("name", AnyText, nullable=False),
    Column("role", AnyText, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("made_for", AnyText),
    Column("max_rows", BigInteger),
    Column("max_bytes", BigInteger),
    Column("max_batches", BigInteger),
)

login_sessions = Table(
    "login_sessions",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("key_id", AnyText, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Sequence, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("action", AnyText, nullable=False),
    Column("key_id", AnyText),
    Column("target", AnyText),
    Column("address", AnyText),
    Column("status", Integer),
)

Index("files_of_key", files.c.key_id, files.c.seq)
Index("batches_of_key", batches.c.key_id, batches.c.seq)
Index("files_listed", files.c.deleted, files.c.purpose, files.c.seq)

_follows = rows.c.original.is_not(None)
Index("rows_original", rows.c.batch, rows.c.original, sqlite_where=_follows, postgresql_where=_follows)

_failed = ~results.c.succeeded
Index("results_failed", results.c.batch, results.c.line, sqlite_where=_failed, postgresql_where=_failed)

# The tables of all batches; where each has its own, these stay empty, and are those of a batch that has none yet.
for _table in batch_metadata.tables.values():
    _table.to_metadata(metadata, schema=None)  # type: ignore[arg-type]
