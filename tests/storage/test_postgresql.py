"""PostgreSQL keeps the contract of a metadata store."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from metadata_contract import MetadataContract

from gristmill.storage.protocol import MetadataStore
from gristmill.storage.sql.store import SqlMetadataStore
from postgres_server import PostgresServer

_TEMPLATE = "gristmill_template"


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> PostgresServer:
    """With a database to make others from that have the tables."""

    async def migrate() -> None:
        store = SqlMetadataStore.at(postgres.url(_TEMPLATE))
        await store.start()
        await store.stop()

    postgres.execute(f"CREATE DATABASE {_TEMPLATE}")
    asyncio.run(migrate())
    return postgres


class TestPostgresql(MetadataContract):
    @pytest.fixture(autouse=True)
    def _server(self, migrated: PostgresServer) -> None:
        self.server = migrated

    def open(self, folder: Path) -> MetadataStore:
        name = "contract_" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]
        if not self.server.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self.server.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return SqlMetadataStore.at(self.server.url(name))
