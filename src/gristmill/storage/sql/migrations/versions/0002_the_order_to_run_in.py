"""The order to run in, rows that get another row's answer, what a batch shares, and its priority."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_order",
        sa.Column("batch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch", "place"),
        sqlite_with_rowid=False,
    )
    op.add_column("rows", sa.Column("original", sa.BigInteger(), nullable=True))
    follows = sa.text("original IS NOT NULL")
    op.create_index("rows_original", "rows", ["batch", "original"], sqlite_where=follows, postgresql_where=follows)
    op.add_column("batches", sa.Column("plan", sa.JSON(), nullable=True))
    op.add_column("batches", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
