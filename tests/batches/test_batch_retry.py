"""Retrying the rows of an ended batch that have no answer: a new batch, which the old one knows of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_supervisor import add_file, end, lines, reach, submit, tell

from gristmill.batches.host import BatchHost
from gristmill.storage.errors import KeyUsed
from gristmill.storage.records import UsedKey, file_blob
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.errors import ApiError
from requests_jsonl import CHAT, chat_file, chat_line, jsonl

#: Marks, line ends and ids that a reader may trip over.
AWKWARD = (
    b"\xef\xbb\xbf"
    + jsonl([chat_line("good 0"), chat_line("bad \u00e9\U0001f33e", "unlucky one")]).replace(b"\n", b"\r\n")
    + b"\n  \n"
    + jsonl([chat_line('bad "\\', "unlucky two"), chat_line("good 1")])
    + b'{"body": {"model": "simulated", "messages": [{"role": "user", "content": "unlucky three"}]}, "method": "POST",'
    + b' "url": "/v1/chat/completions", "custom_id": "b\\u0061d last"}'
)
BAD = ["bad \u00e9\U0001f33e", 'bad "\\', "bad last"]


def let_all_succeed(host: BatchHost) -> None:
    engine: Any = host.dispatcher.engine
    engine._options = msgspec.structs.replace(engine._options, fail_on="")


async def refused(host: BatchHost, batch_id: str, says: str) -> None:
    with pytest.raises(ApiError, match=says) as refusal:
        await host.batches.retry(batch_id)
    assert refusal.value.status == 409 and refusal.value.retry is False


def link(batch: Batch) -> tuple[str | None, str | None]:
    assert batch.gristmill is not None
    return batch.gristmill.retry_of, batch.gristmill.retried_by


async def content(host: BatchHost, file_id: str | None) -> bytes:
    assert file_id is not None
    return b"".join([chunk async for chunk in host.storage.blobs.stream(file_blob(file_id))])


def test_failed_rows_run_again_in_a_new_batch_as_they_were_and_the_old_one_stays_as_it_is(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        await add_file(host, AWKWARD)
        request = CreateBatchRequest(
            "file-1", CHAT, "2d", metadata={"a": msgspec.Raw(b'"b"')}, priority=2, defaults={"temperature": 0}
        )
        first = await end(host, (await host.batches.create(request)).id)
        assert [line["custom_id"] for line in await lines(host, first.error_file_id)] == BAD
        await refused_while_running(host)
        retry = await host.batches.retry(first.id)
        assert link(retry) == (first.id, None) and retry.status == "validating"
        assert (retry.completion_window, retry.metadata, retry.endpoint) == ("2d", {"a": "b"}, CHAT)
        assert retry.gristmill and retry.gristmill.priority == 2 and retry.request_counts.total == 3
        given = await host.storage.metadata.batches.get(retry.id)
        assert given is not None and given.defaults == {"temperature": 0}
        # What is asked again has not ended: no second one.
        assert (await host.batches.retry(first.id)).id == retry.id
        await refused(host, retry.id, "its rows are still being run") if retry.status != "completed" else None
        retry = await end(host, retry.id)
        # They fail again: now it is those of the retry.
        assert [line["custom_id"] for line in await lines(host, retry.error_file_id)] == BAD
        let_all_succeed(host)
        last = await end(host, (await host.batches.retry(first.id)).id)
        assert link(last) == (retry.id, None) and link(await host.batches.get(retry.id)) == (first.id, last.id)
        assert (last.status, last.error_file_id) == ("completed", None)
        assert [line["custom_id"] for line in await lines(host, last.output_file_id)] == BAD
        for batch_id in first.id, last.id:
            await refused(host, batch_id, f"nothing to retry: every row of {last.id} was answered")
        known = await host.batches.get(first.id)
        assert known.gristmill and first.gristmill
        first.gristmill.retried_by = retry.id
        assert known == first

    async def refused_while_running(host: BatchHost) -> None:
        running = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h"))
        await refused(host, running.id, "its rows are still being run")
        await end(host, running.id)

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request", latency=0.01)


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_rows_that_never_ran_are_retried_too(tmp_path: Path, status: str) -> None:
    async def story(host: BatchHost) -> None:
        batch = await submit(host, chat_file(200))
        await reach(host, batch.id, lambda seen: seen.request_counts.completed >= 10)
        await host.batches.pause(batch.id)
        if status == "cancelled":
            await host.batches.cancel(batch.id)
        else:
            await host.storage.metadata.batches.change(batch.id, {"expires_at": 1}, expected="in_progress")
        batch = await end(host, batch.id)
        retry = await end(host, (await host.batches.retry(batch.id)).id)
        answered = await lines(host, batch.output_file_id) + await lines(host, retry.output_file_id)
        assert (batch.status, retry.status) == (status, "completed")
        assert sorted(line["custom_id"] for line in answered) == sorted(f"row-{row}" for row in range(200))
        # Its input is the lines as they were.
        taken = (await content(host, retry.input_file_id)).splitlines()
        assert set(taken) <= set(chat_file(200).splitlines()) and len(taken) == retry.request_counts.total

    tell(tmp_path, story, latency=0.01, slots=4)


def test_a_batch_whose_input_was_refused_is_read_again(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, jsonl([chat_line("a", model="unknown")]))).id)
        assert batch.status == "failed"
        retry = await end(host, (await host.batches.retry(batch.id)).id)
        assert (retry.status, retry.input_file_id) == ("failed", "file-1")
        assert link(retry)[0] == batch.id

    tell(tmp_path, story)


def test_what_is_gone_cannot_be_retried_and_nothing_is_left_of_the_try(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, AWKWARD)).id)
        files = host.storage.metadata.files
        before = await files.page(after=None, limit=100, newest_first=True, purpose=None)
        await add_file(host, chat_file(2), "file-other")
        change = {"input_file_id": "file-other"}
        await host.storage.metadata.batches.change(batch.id, change, expected="completed")
        await refused(host, batch.id, "are not in file-other")
        change = {"input_file_id": "file-1"}
        await host.storage.metadata.batches.change(batch.id, change, expected="completed")
        await files.delete("file-other")
        assert (await files.page(after=None, limit=100, newest_first=True, purpose=None)) == before
        await host.storage.new_blobs.free_unnamed()
        kept = {path.name for path in (tmp_path / "blobs" / "files").iterdir()}
        assert kept <= {file.id for file in before.records} | {"file-other"}
        assert batch.error_file_id
        await files.delete("file-1")
        await refused(host, batch.id, "its input file was deleted or has expired")

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request")


def test_of_many_who_retry_at_once_one_creates_and_the_others_get_its_batch(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, AWKWARD)).id)
        engine: Any = host.dispatcher.engine
        engine._options = msgspec.structs.replace(engine._options, fail_on="", latency=0.5)
        retries = await asyncio.gather(*[host.batches.retry(batch.id) for _ in range(8)])
        assert len({retry.id for retry in retries}) == 1
        assert len((await host.batches.page(None, 100)).data) == 2
        assert (await end(host, retries[0].id)).request_counts.completed == 3
        await host.storage.new_blobs.free_unnamed()
        files = await host.storage.metadata.files.page(after=None, limit=100, newest_first=True, purpose=None)
        assert {path.name for path in (tmp_path / "blobs" / "files").iterdir()} == {file.id for file in files.records}

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request")


def test_the_same_key_gets_the_first_answer_however_the_retry_went(tmp_path: Path) -> None:
    async def story(host: BatchHost) -> None:
        batch = await end(host, (await submit(host, AWKWARD)).id)
        let_all_succeed(host)
        key = UsedKey.of("k", "POST retry", b"", 1)
        retry = await host.batches.retry(batch.id, key)
        await end(host, retry.id)
        with pytest.raises(KeyUsed) as used:
            await host.batches.retry(batch.id, key)
        assert msgspec.json.decode(used.value.first.answer)["id"] == retry.id

    tell(tmp_path, story, fail_on="unlucky", failure_kind="invalid_request")
