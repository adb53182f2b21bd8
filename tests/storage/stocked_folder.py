"""A data folder with something in it, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from gristmill.storage.open import OpenStorage, StorageSettings
from gristmill.storage.protocol import Storage
from gristmill.storage.records import (
    BatchRecord,
    FileRecord,
    Stage,
    file_blob,
)
from gristmill.storage.row_records import Result, Row


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def add_file(storage: Storage, file_id: str, content: bytes, **fields: object) -> None:
    async with storage.new_blobs.begin(file_blob(file_id)) as write:
        size = await write(once(content))
        record = {"id": file_id, "bytes": size, "created_at": 1, "filename": "a.jsonl", "purpose": "batch"}
        await storage.metadata.files.add(FileRecord(**(record | fields)))  # type: ignore[arg-type]


async def add_batch(storage: Storage, name: str, rows: int, done: int, **fields: object) -> BatchRecord:
    """In progress, with ``done`` results."""
    record = {
        "seq": 0, "id": name, "endpoint": "/v1/chat/completions", "input_file_id": "file-1", "completion_window": "24h",
        "status": "in_progress", "created_at": 1, "expires_at": 2**40, "total": rows, "in_progress_at": 1,
    }  # fmt: skip
    batches, at = storage.metadata.batches, storage.metadata.rows
    added = await batches.add(BatchRecord(**(record | fields)))  # type: ignore[arg-type]
    while (claim := await batches.claim(name, 0, 60, Stage.EXECUTION)) is not None and claim.batch.id != name:
        pass
    assert claim is not None
    await at.add(claim.lease, [Row(line, f"row-{line}", line, 1) for line in range(1, rows + 1)])
    await at.commit(claim.lease, [Result(line, True, b"x" * 100) for line in range(1, done + 1)])
    return added


async def use(data: Path, story: Callable[[Storage], Awaitable[None]]) -> None:
    """As a server would that starts and stops."""
    opened = OpenStorage(StorageSettings(data))
    storage = await opened.start()
    try:
        await story(storage)
    finally:
        await opened.stop()


async def _stock(storage: Storage) -> None:
    await add_file(storage, "file-1", b"one\n" * 1000)
    await add_file(storage, "file-2", b"two\n" * 500)
    await add_batch(storage, "batch_1", 20, 7)


#: Of a scoring that runs, below its data folder.
SCORING = f"scoring/scoring_{'a' * 32}"


def stocked(data: Path) -> Path:
    asyncio.run(use(data, _stock))
    for name in ("job.json", "table.csv", "work/1/batch.json"):
        (data / SCORING / name).parent.mkdir(parents=True, exist_ok=True)
        (data / SCORING / name).write_text(f"of {name}")
    return data


def content(data: Path) -> dict[str, object]:
    """All that is stored, as it can be seen when a server has started on it and stopped."""

    async def nothing(_: Storage) -> None:
        pass

    asyncio.run(use(data, nothing))
    with sqlite3.connect(data / "gristmill.db") as connection:
        tables = ("files", "batches", "rows", "results")
        found: dict[str, object] = {each: connection.execute(f"SELECT * FROM {each}").fetchall() for each in tables}
    connection.close()
    blobs = {path.name: path.read_bytes() for path in _files(data / "blobs")}
    scorings = {str(path.relative_to(data)): path.read_bytes() for path in _files(data / "scoring")}
    return found | {"blobs": blobs, "scorings": scorings}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
