"""A kill after something was created and before its answer was sent: sent again with its key, it is created once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from test_bytes_without_a_record import dying, killed_before, named, stored

from requests_jsonl import CHAT, chat_file
from server_process import ServerProcess

ANSWER = "starlette.responses:Response.__call__"
KEY = {"Idempotency-Key": "the key"}


def create_file(client: openai.OpenAI) -> str:
    return client.files.create(file=chat_file(3), purpose="batch", extra_headers=KEY).id


def create_batch(client: openai.OpenAI) -> str:
    given = {"endpoint": CHAT, "completion_window": "24h"}
    return client.batches.create(input_file_id="file-x", extra_headers=KEY, **given).id  # type: ignore[arg-type]


def created(client: openai.OpenAI) -> list[str]:
    return [each.id for each in [*client.files.list(), *client.batches.list()]]


@pytest.mark.parametrize("create", [create_file, create_batch])
def test_it_is_created_once(data: Path, create: Callable[[openai.OpenAI], str]) -> None:
    with killed_before(data, ANSWER) as server, dying(server):
        create(server.client(max_retries=0))
    with ServerProcess(data) as server:
        before = created(server.client())
        assert len(before) == 1
        assert [create(server.client())] == created(server.client()) == before
    assert stored(data) == named(data)


def test_an_upload_is_completed_once(data: Path) -> None:
    with killed_before(data, ANSWER, call=3) as server:
        client = server.client(max_retries=0)
        upload = client.uploads.create(bytes=5, filename="a", mime_type="x/y", purpose="user_data")
        part = client.uploads.parts.create(upload.id, data=b"12345")
        with dying(server):
            client.uploads.complete(upload.id, part_ids=[part.id], extra_headers=KEY)
    with ServerProcess(data) as server:
        client = server.client()
        again = client.uploads.complete(upload.id, part_ids=[part.id], extra_headers=KEY)
        assert again.file is not None and created(client) == [again.file.id]
        assert client.files.content(again.file.id).content == b"12345"
