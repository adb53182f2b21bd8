"""Alembic's entry point; always run on the connection that the database hands over."""

from __future__ import annotations

from alembic import context

from gristmill.storage.sql.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
