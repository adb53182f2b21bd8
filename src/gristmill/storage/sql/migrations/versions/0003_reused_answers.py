"""Batches that reuse the answers of earlier ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("reuse_answers", sa.Boolean(), server_default="0", nullable=False))
    op.add_column("batches", sa.Column("reused_answers", sa.BigInteger(), server_default="0", nullable=False))
