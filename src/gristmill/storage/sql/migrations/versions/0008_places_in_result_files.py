"""Where results stand in the files of ended batches, and failed results found without the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "result_places",
        sa.Column("batch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False, autoincrement=False),
        sa.Column("line", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("input_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch", "succeeded", "line"),
        sqlite_with_rowid=False,
    )
    failed = sa.text("succeeded = 0")
    op.create_index(
        "results_failed", "results", ["batch", "line"], sqlite_where=failed, postgresql_where=sa.text("NOT succeeded")
    )
