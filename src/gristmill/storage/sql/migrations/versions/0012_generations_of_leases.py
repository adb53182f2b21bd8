"""Leases that are counted: who lost a batch and claims it again has another lease than before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("lease_generation", sa.BigInteger(), nullable=False, server_default="0"))
