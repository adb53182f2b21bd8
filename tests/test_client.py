"""The public client, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import gristmill
from gristmill.user_error import UserError
from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("data")
    started = ServerProcess(data, "-O", "fail_on=bad", "-O", "failure_kind=invalid_request").start()
    yield started
    started.stop()


def test_a_file_in_and_its_answers_out(server: ServerProcess, tmp_path: Path) -> None:
    messages = [[{"role": "user", "content": text}] for text in ("good", "bad", "fine")]
    rows = [chat_line(f"row-{i}", messages=each) for i, each in enumerate(messages)]
    (tmp_path / "rows.jsonl").write_bytes(jsonl(rows))
    client = gristmill.Client(server.base_url)
    seen: list[str] = []
    batch = client.submit(tmp_path / "rows.jsonl", metadata={"job": "first"}, defaults={"max_tokens": 3})
    batch = client.wait(batch, lambda found: seen.append(found.status))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)
    assert batch.metadata == {"job": "first"} and seen
    written = client.save(batch, tmp_path / "answers.jsonl")
    assert [path.name for path in written] == ["answers.jsonl", "answers.errors.jsonl"]
    ids = [[json.loads(line)["custom_id"] for line in path.read_text().splitlines()] for path in written]
    assert ids == [["row-0", "row-2"], ["row-1"]]
    assert client.page(1).data[0].id == batch.id


def test_what_goes_wrong_is_one_sentence(server: ServerProcess, tmp_path: Path) -> None:
    client = gristmill.Client(server.base_url)
    with pytest.raises(UserError, match="No batch found with id 'none'"):
        client.get("none")
    with pytest.raises(UserError, match="No server answers at"):
        gristmill.Client("http://127.0.0.1:1/v1").models()
