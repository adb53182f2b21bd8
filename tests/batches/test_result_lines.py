"""What has been answered of a batch and its retries, before the end and after it, at whatever moment it is asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_supervisor import add_file, end, lines, reach, submit, tell

from gristmill.batches.host import BatchHost
from gristmill.batches.results import result_lines as reading
from gristmill.batches.results.result_lines import Kind, result_lines
from gristmill.storage.errors import UnknownCursor
from gristmill.wire.batch import CreateBatchRequest
from gristmill.wire.errors import ApiError
from requests_jsonl import CHAT, chat_line, jsonl

ROWS = 200


def rows(bad: range = range(0)) -> bytes:
    return jsonl([chat_line(f"row-{n}", f"unlucky {n}" if n in bad else f"fine {n}") for n in range(ROWS)])


async def read(host: BatchHost, batch_id: str, kind: Kind = "output", after: str | None = None) -> list[dict[str, Any]]:
    record = await host.batches.record(batch_id)
    data = b"".join([chunk async for chunk in result_lines(host.storage, record, kind, after)])
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in found]


def test_what_is_there_so_far_is_the_beginning_of_what_the_files_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAGE_ROWS", 7)

    async def story(host: BatchHost) -> None:
        batch = await submit(host, rows(bad=range(0, ROWS, 9)))
        assert await read(host, batch.id) == []
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 40)
        await host.batches.pause(batch.id)
        while host.supervisor._tasks:
            await asyncio.sleep(0.005)
        so_far: dict[Kind, list[dict[str, Any]]] = {
            "output": await read(host, batch.id),
            "error": await read(host, batch.id, "error"),
        }
        counts = (await host.batches.get(batch.id)).request_counts
        assert (len(so_far["output"]), len(so_far["error"])) == (counts.completed, counts.failed)
        assert await read(host, batch.id, "output", so_far["output"][9]["custom_id"]) == so_far["output"][10:]
        with pytest.raises(UnknownCursor):
            await read(host, batch.id, "output", so_far["error"][0]["custom_id"])
        await host.batches.resume(batch.id)
        batch = await end(host, batch.id)
        for kind, file_id in (("output", batch.output_file_id), ("error", batch.error_file_id)):
            whole = await lines(host, file_id)
            assert await read(host, batch.id, kind) == whole  # type: ignore[arg-type]
            assert all(line in whole for line in so_far[kind])  # type: ignore[index]
            assert ids(so_far[kind]) == [name for name in ids(whole) if name in ids(so_far[kind])]  # type: ignore[index]
            # The same place as before the end.
            after = so_far[kind][-1]["custom_id"]  # type: ignore[index]
            assert await read(host, batch.id, kind, after) == whole[ids(whole).index(after) + 1 :]  # type: ignore[arg-type]
        for unknown in "row-none", "row-", '"', "\0", "":
            with pytest.raises(UnknownCursor):
                await read(host, batch.id, "output", unknown)

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request", latency=0.01, slots=4)


@pytest.mark.parametrize("kind", ["output", "error"])
@pytest.mark.parametrize("moment", ["before a page", "after a page"])
def test_a_batch_that_ends_while_it_is_read_is_read_on_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, kind: Kind
) -> None:
    monkeypatch.setattr(reading, "_PAGE_ROWS", 7)

    async def story(host: BatchHost) -> None:
        batch = await submit(host, rows(bad=range(0, ROWS, 4)))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 40)
        await host.batches.pause(batch.id)
        while host.supervisor._tasks:
            await asyncio.sleep(0.005)
        store: Any = host.storage.metadata.rows
        seen, pages = store.seen, 0

        async def ending(*arguments: Any) -> Any:
            nonlocal pages
            pages += 1
            if moment == "after a page":
                found = await seen(*arguments)
            if pages == 3:
                await host.batches.cancel(batch.id)
                await end(host, batch.id)
                while host.supervisor._tasks:
                    # The rows are dropped from the database.
                    await asyncio.sleep(0.005)
            return found if moment == "after a page" else await seen(*arguments)

        store.seen = ending
        found = await read(host, batch.id, kind)
        ended = await host.batches.get(batch.id)
        assert ended.status == "cancelled" and pages == 3
        assert found == await lines(host, ended.output_file_id if kind == "output" else ended.error_file_id)

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request", latency=0.01, slots=4)


def test_with_retries_each_row_is_there_once_and_failed_ones_are_those_of_the_last(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        await add_file(host, rows(bad=range(0, ROWS, 10)))
        created = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
        first = await end(host, created.id)
        engine: Any = host.dispatcher.engine
        engine._options = msgspec.structs.replace(engine._options, fail_on="unlucky 1", latency=0.2)
        retry = await host.batches.retry(first.id)
        # Under way: what is asked again has not failed yet.
        assert await read(host, first.id, "error") == []
        assert len(await read(host, first.id)) == ROWS - 20
        retry = await end(host, retry.id)
        output, errors = await read(host, first.id), await read(host, first.id, "error")
        assert len(output) == first.request_counts.completed + retry.request_counts.completed
        assert sorted(ids(output) + ids(errors)) == sorted(f"row-{n}" for n in range(ROWS))
        assert errors == await lines(host, retry.error_file_id) and len(errors) == 11
        for at in 0, ROWS - 21, ROWS - 20, len(output) - 1:
            assert await read(host, first.id, "output", output[at]["custom_id"]) == output[at + 1 :]
        assert await read(host, retry.id) == output[ROWS - 20 :]
        with pytest.raises(UnknownCursor):
            await read(host, first.id, "output", errors[0]["custom_id"])
        assert retry.output_file_id
        await host.storage.metadata.files.delete(retry.output_file_id)
        with pytest.raises(ApiError, match=f"output file of {retry.id} was deleted") as gone:
            await read(host, first.id)
        assert gone.value.status == 404

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request")


def test_a_retry_that_was_refused_as_a_whole_hides_nothing(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, rows(bad=range(0, ROWS, 10)))).id)
        retry = await host.batches.retry(batch.id)
        refused = {"status": "failed", "failed_at": 1}
        for status in "validating", "in_progress", "finalizing", "completed":
            await host.storage.metadata.batches.change(retry.id, refused | {"in_progress_at": None}, expected=status)
        assert await read(host, batch.id, "error") == await lines(host, batch.error_file_id)

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request")


def test_any_name_says_where_to_go_on(tmp_path: Path) -> None:
    names = [
        "a",
        'a"',
        'a"b',
        "\u00e9\U0001f33e",
        "e\u0301",
        "x\\",
        "\u2028",
        "row\nrow",
        "%41",
        "a ",
        "{}",
        '","custom_id":"a"',
    ]

    async def story(host: BatchHost) -> None:
        data = jsonl([chat_line(name, f"text {n}") for n, name in enumerate([*names, "never"])])
        batch = await submit(host, data)
        await reach(host, batch.id, lambda seen: seen.request_counts.completed == len(names))
        for ended in False, True:
            if ended:
                await host.batches.cancel(batch.id)
                await end(host, batch.id)
            for n, name in enumerate(names):
                assert ids(await read(host, batch.id, "output", name)) == names[n + 1 :]

    tell(tmp_path, story, fail_on=f"text {len(names)}", failure_kind="unavailable", latency=0.01)
