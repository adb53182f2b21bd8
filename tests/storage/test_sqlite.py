"""SQLite keeps the contract of a metadata store."""

from __future__ import annotations

from pathlib import Path

from metadata_contract import MetadataContract

from gristmill.storage.protocol import MetadataStore
from gristmill.storage.sql.store import SqlMetadataStore


class TestSqlite(MetadataContract):
    def open(self, folder: Path) -> MetadataStore:
        return SqlMetadataStore.at(f"sqlite:///{folder / 'test.db'}")
