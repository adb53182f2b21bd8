"""Batches that are paused, and batches that ask the unanswered rows of another again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("paused_at", sa.BigInteger()))
    op.add_column("batches", sa.Column("retry_of", sa.Text()))
    op.add_column("batches", sa.Column("retried_by", sa.Text()))
