"""The metadata store in SQL: SQLAlchemy Core, migrated by Alembic. SQLite here; the seam for PostgreSQL is the URL."""
