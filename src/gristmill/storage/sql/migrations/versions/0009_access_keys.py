"""Access keys, whose everything is, and who did what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_Sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "access_keys",
        sa.Column("seq", _Sequence, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.Column("made_for", sa.Text()),
        sa.Column("max_rows", sa.BigInteger()),
        sa.Column("max_bytes", sa.BigInteger()),
        sa.Column("max_batches", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "login_sessions",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_table(
        "audit_log",
        sa.Column("seq", _Sequence, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text()),
        sa.Column("target", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.Column("status", sa.Integer()),
        sa.PrimaryKeyConstraint("seq"),
    )
    for table in ("files", "uploads", "batches"):
        op.add_column(table, sa.Column("key_id", sa.Text()))
    op.create_index("files_of_key", "files", ["key_id", "seq"])
    op.create_index("batches_of_key", "batches", ["key_id", "seq"])
    # Another primary key is another table; what is there was used where there were no access keys.
    op.rename_table("idempotency_keys", "idempotency_keys_before")
    op.create_table(
        "idempotency_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "key"),
    )
    op.execute(
        "INSERT INTO idempotency_keys (key_id, key, request, used_at, answer)"
        " SELECT '', key, request, used_at, answer FROM idempotency_keys_before"
    )
    op.drop_table("idempotency_keys_before")
