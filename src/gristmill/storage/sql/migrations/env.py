"""Alembic's entry point; always run on the connection that the database hands over."""

from __future__ import annotations

from alembic import context

from gristmill.storage.sql.schema import metadata

# Alembic takes SQLite to have no transactional DDL. It has: all migrations together are one transaction, the one that
# the connection is in.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
