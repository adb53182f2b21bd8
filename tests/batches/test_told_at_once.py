"""Two servers on one PostgreSQL: what is done through one, the other takes up as it is told, or a look later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from test_supervisor import add_file, end, reach

from gristmill.batches import runner, supervisor
from gristmill.batches.host import BatchHost, HostSettings
from gristmill.engines.registry import EngineSettings
from gristmill.storage.open import StorageSettings
from gristmill.wire.batch import CreateBatchRequest
from pgbouncer import PgBouncer
from postgres_server import PostgresServer
from requests_jsonl import CHAT, chat_line, jsonl

NEVER = 1e6


@contextlib.asynccontextmanager
async def serving(url: str, folder: Path, model: str) -> AsyncIterator[BatchHost]:
    """A server that has only ``model``."""
    engine = EngineSettings("simulated", model=model, options={"latency": "0.2", "slots": "8"})
    storage = StorageSettings(folder / model, url, str(folder / "blobs"))
    host = BatchHost(HostSettings(storage, engine, stop_grace=0))
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


async def run_and_cancel(host: BatchHost, name: str) -> None:
    """Both through a server that has no model "right"."""
    async with asyncio.timeout(120):
        long_file, short_file = f"file-{name}-long", f"file-{name}-short"
        for file, rows in ((short_file, 10), (long_file, 2_000)):
            await add_file(host, jsonl([chat_line(f"row-{row}", model="right") for row in range(rows)]), file)
        short = await host.batches.create(CreateBatchRequest(short_file, CHAT, "24h"))
        assert (await end(host, short.id)).status == "completed"
        long = await host.batches.create(CreateBatchRequest(long_file, CHAT, "24h"))
        await reach(host, long.id, lambda batch: batch.request_counts.completed > 0)
        await host.batches.cancel(long.id)
        ended = await end(host, long.id)
        assert ended.status == "cancelled" and ended.request_counts.completed < 2_000


async def test_a_server_that_never_looks_takes_up_a_batch_and_a_cancel_also_after_its_connection_was_cut(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", NEVER)
    monkeypatch.setattr(runner, "_WATCH_SECONDS", NEVER)
    url = postgres.new_database()
    async with serving(url, tmp_path, "left") as left, serving(url, tmp_path, "right"):
        await run_and_cancel(left, "before")
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = '{}'"
        assert len(postgres.execute(cut.format(url.rpartition("/")[2]))) == 2
        await run_and_cancel(left, "after")


async def test_behind_pgbouncer_in_transaction_mode_a_batch_and_a_cancel_are_found_by_looking(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with PgBouncer(postgres) as bouncer, capture_logs() as log:
        url = bouncer.url(postgres.new_database())
        async with serving(url, tmp_path, "left") as left, serving(url, tmp_path, "right"):
            await run_and_cancel(left, "only")
        assert len([line for line in log if "pooler" in line.get("reason", "")]) == 2
