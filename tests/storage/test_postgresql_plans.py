"""What a page of a batch's rows costs does not grow with the batch, also before autovacuum has looked at its tables."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from metadata_contract import claimed
from sqlalchemy import Engine, event

from gristmill.storage.protocol import Rows
from gristmill.storage.row_records import Result, RowFilter
from gristmill.storage.sql.store import SqlMetadataStore
from postgres_server import PostgresServer
from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

ROWS = 20_000
Read = Callable[[Rows, int], Awaitable[Any]]


@pytest.fixture
def without_autovacuum(postgres: PostgresServer) -> Iterator[PostgresServer]:
    for setting in ("SET autovacuum = off", "RESET autovacuum"):
        postgres.execute(f"ALTER SYSTEM {setting}")
        postgres.execute("SELECT pg_reload_conf()")
        if setting.startswith("SET"):
            yield postgres


async def assert_read_by_the_page(store: SqlMetadataStore, batch_seq: int, **reads: Read) -> None:
    """No statement of any of them looks at more rows than a few pages have."""
    for name, read in reads.items():
        for statement, parameters in await sent_by(store, read, batch_seq):
            plan = await store._database.read_rows(
                batch_seq,
                lambda connection: connection.exec_driver_sql(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}",  # noqa: B023
                    parameters,  # noqa: B023
                ).scalar_one(),
            )
            looked_at = most_rows(plan[0]["Plan"])
            assert looked_at < ROWS // 5, f"{name} looks at {looked_at} rows: {statement}\n{json.dumps(plan, indent=1)}"


async def sent_by(store: SqlMetadataStore, read: Read, batch_seq: int) -> list[tuple[str, Any]]:
    sent: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if connection.dialect.name == "postgresql" and statement.startswith("SELECT"):
            sent.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await read(store.rows, batch_seq)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert sent
    return sent


def most_rows(plan: dict[str, Any]) -> float:
    """That any step of it has read, also those that it has left out."""
    read = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    return max([read * plan["Actual Loops"], *map(most_rows, plan.get("Plans", []))])


async def test_a_page_of_tables_that_were_filled_a_moment_ago_is_read_without_the_rest(
    without_autovacuum: PostgresServer, tmp_path: Path
) -> None:
    url = without_autovacuum.new_database()
    options = ("--database", url, "--blobs", str(tmp_path / "blobs"), "-O", "latency=1", "-O", "slots=1")
    with ServerProcess(tmp_path / "data", *options) as server:
        client = server.client()
        uploaded = client.files.create(file=("in.jsonl", chat_file(ROWS)), purpose="batch")
        batch = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
        while client.batches.retrieve(batch.id).status != "in_progress":
            time.sleep(0.05)
        assert server.stop() == 0
    store = SqlMetadataStore.at(url)
    try:
        lease = await claimed(store, "me")
        seq = lease.batch_seq
        for after in (0, ROWS // 2):
            await assert_read_by_the_page(
                store,
                seq,
                pending=lambda rows, seq: rows.pending(seq, after, 256),  # noqa: B023
                waiting=lambda rows, seq: rows.seen(seq, RowFilter(outcome="waiting"), after, ROWS, 50),  # noqa: B023
                all_rows=lambda rows, seq: rows.seen(seq, RowFilter(), after, ROWS, 50),  # noqa: B023
                followers=lambda rows, seq: rows.followers(seq, [3, 5, 7]),
                counted=lambda rows, seq: rows.count_followers(seq, [3, 5, 7]),
                offsets=lambda rows, seq: rows.offsets(seq, [3, 5, 7]),
                last_line=lambda rows, seq: rows.last_line(seq),
            )
        lines = [row.line for _, row in await store.rows.pending(seq, 0, ROWS)]
        await store.rows.commit(lease, [Result(line, line % 10 > 1, b"x" * 300) for line in lines[::2]])
        await store.rows.update_statistics(lease)
        for after in (0, ROWS * 3 // 4):
            await assert_read_by_the_page(
                store,
                seq,
                pending=lambda rows, seq: rows.pending(seq, after, 256),  # noqa: B023
                waiting=lambda rows, seq: rows.seen(seq, RowFilter(outcome="waiting"), after, ROWS, 50),  # noqa: B023
            )
        await store.rows.arrange(lease, 1, list(range(ROWS, 0, -1)))
        await store.rows.update_statistics(lease)
        for after in (0, ROWS * 3 // 4):
            await assert_read_by_the_page(
                store,
                seq,
                pending_in_order=lambda rows, seq: rows.pending(seq, after, 256),  # noqa: B023
                succeeded=lambda rows, seq: rows.succeeded(seq, after, 256),  # noqa: B023
                not_succeeded=lambda rows, seq: rows.not_succeeded(seq, after, 256),  # noqa: B023
                seen_succeeded=lambda rows, seq: rows.seen(seq, RowFilter(outcome="succeeded"), after, ROWS, 50),  # noqa: B023
                seen_failed=lambda rows, seq: rows.seen(seq, RowFilter(outcome="failed"), after, ROWS, 50),  # noqa: B023
                of_one=lambda rows, seq: rows.offsets(seq, [3, 5, 7]),
                named=lambda rows, seq: rows.seen(seq, RowFilter("row-7"), after, after + 1_000, 50),  # noqa: B023
            )
    finally:
        await store.stop()
