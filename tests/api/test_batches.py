from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from contract import checked_client
from jobs import both_files, ids, lines, run, set_timestamps, submit, wait_until

from gristmill.storage.open import OpenStorage, StorageSettings
from requests_jsonl import CHAT, chat_file, chat_line, jsonl
from server_process import ServerProcess

SLOW = ("--engine-option", "latency=0.2", "--engine-option", "slots=2", "--stop-grace", "0")
BAD_ROW = {"max_tokens": -1}


def counts(batch: Any) -> tuple[int, int, int]:
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def test_a_new_batch_is_validating_with_every_key_present(client: openai.OpenAI, http: httpx.Client) -> None:
    file = client.files.create(file=chat_file(1), purpose="batch")
    request = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    batch = http.post("/batches", json=request).raise_for_status().json()
    assert batch["status"] == "validating" and batch["expires_at"] == batch["created_at"] + 86400
    keys = """id object endpoint model errors input_file_id completion_window status output_file_id error_file_id
        created_at in_progress_at expires_at finalizing_at completed_at failed_at expired_at cancelling_at cancelled_at
        request_counts usage metadata"""
    assert set(keys.split()) <= set(batch)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


def test_a_batch_completes_with_one_output_line_a_request(client: openai.OpenAI) -> None:
    batch = run(client, chat_file(5))
    assert batch.status == "completed" and counts(batch) == (5, 5, 0)
    assert set_timestamps(batch) == {"in_progress_at", "finalizing_at", "completed_at"}
    assert (batch.error_file_id, batch.errors, batch.model) == (None, None, "simulated")
    output, _ = both_files(client, batch)
    assert ids(output) == [f"row-{index}" for index in range(5)]
    assert batch.usage is not None and batch.usage.output_tokens > 0
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    file = client.files.retrieve(batch.output_file_id or "")
    assert file.purpose == "batch_output" and batch.completed_at is not None
    assert file.expires_at == file.created_at + 30 * 86400


def test_a_failed_row_is_in_the_error_file_with_its_response(client: openai.OpenAI) -> None:
    batch = run(client, jsonl([chat_line("good"), chat_line("bad", **BAD_ROW)]))
    assert batch.status == "completed" and counts(batch) == (2, 1, 1)
    output, errors = both_files(client, batch)
    assert (ids(output), ids(errors)) == (["good"], ["bad"])
    assert errors[0]["response"]["status_code"] == 400 and errors[0]["error"] is None
    assert client.files.retrieve(batch.error_file_id or "").purpose == "batch_output"


def test_a_batch_whose_rows_all_fail_is_completed_without_an_output_file(client: openai.OpenAI) -> None:
    batch = run(client, jsonl([chat_line(str(index), **BAD_ROW) for index in range(3)]))
    assert batch.status == "completed" and counts(batch) == (3, 0, 3)
    assert batch.output_file_id is None and batch.errors is None
    assert len(lines(client, batch.error_file_id)) == 3


def test_a_completions_batch_completes(client: openai.OpenAI) -> None:
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "simulated", "prompt": "Hi"},
    }
    batch = run(client, jsonl([line]), endpoint="/v1/completions")
    assert counts(batch) == (1, 1, 0) and len(lines(client, batch.output_file_id)) == 1


def test_rejected_input_fails_the_batch_with_every_bad_line(client: openai.OpenAI) -> None:
    no_id = chat_line("x")
    del no_id["custom_id"]
    data = jsonl([chat_line("a"), no_id, chat_line("a")]) + b"not json\n"
    batch = run(client, data)
    assert batch.status == "failed" and counts(batch) == (0, 0, 0)
    assert set_timestamps(batch) == {"failed_at"}
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.errors is not None and batch.errors.object == "list" and batch.errors.data is not None
    found = [(error.line, error.code) for error in batch.errors.data]
    assert found == [(2, "missing_required_parameter"), (3, "duplicate_custom_id"), (4, "invalid_json_line")]


def test_an_unknown_input_file_fails_the_batch(client: openai.OpenAI) -> None:
    batch = client.batches.create(input_file_id="file-nowhere", endpoint=CHAT, completion_window="24h")
    batch = wait_until(client, batch)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    error = batch.errors.data[0]
    assert (error.code, error.param, error.line) == ("invalid_request", "file_id", None)
    assert error.message is not None and error.message.startswith("Cannot find file file-nowhere")


def test_metadata_is_echoed_exactly(client: openai.OpenAI) -> None:
    metadata = {"request_file": "rows é\u2028.jsonl", "k" * 64: "v" * 512, "empty": ""}
    batch = submit(client, chat_file(1), metadata=metadata)
    assert batch.metadata == client.batches.retrieve(batch.id).metadata == metadata


REFUSED_CREATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no file": ({"input_file_id": openai.omit}, "input_file_id", "missing_required_parameter"),
    "no endpoint": ({"endpoint": openai.omit}, "endpoint", "missing_required_parameter"),
    "no window": ({"completion_window": openai.omit}, "completion_window", "missing_required_parameter"),
    "bad endpoint": ({"endpoint": "/v1/invalid"}, "endpoint", "invalid_value"),
    "moderations": ({"endpoint": "/v1/moderations"}, "endpoint", "invalid_value"),
    "bad window": ({"completion_window": "soon"}, "completion_window", "invalid_value"),
    "long window": ({"completion_window": "367d"}, "completion_window", "invalid_value"),
    "metadata array": ({"metadata": {"tags": ["a"]}}, "metadata.tags", "invalid_type"),
    "metadata pairs": ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "object_above_max_properties"),
    "metadata key": ({"metadata": {"k" * 65: ""}}, "metadata", "string_above_max_length"),
    "metadata value": ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
}


@pytest.mark.parametrize("case", REFUSED_CREATES)
def test_create_refuses_bad_parameters_and_makes_no_batch(client: openai.OpenAI, case: str) -> None:
    given, param, code = REFUSED_CREATES[case]
    before = client.batches.list(limit=1).data
    request: dict[str, Any] = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(**request | given)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert [batch.id for batch in client.batches.list(limit=1).data] == [batch.id for batch in before]


MISSPELT = {
    "completion_windw": "Did you mean 'completion_window'?",
    "Endpoint": "Did you mean 'endpoint'?",
    "output_expire_after": "Did you mean 'output_expires_after'?",
    "reuse_answer": "Did you mean 'reuse_answers'?",
    "callback": "Unrecognized request argument supplied: callback",
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_field_that_create_does_not_know_is_refused_with_the_nearest_name(http: httpx.Client, name: str) -> None:
    request = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    before = http.get("/batches").json()["data"]
    answer = http.post("/batches", json=request | {name: "24h"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == name
    assert answer.json()["error"]["message"].endswith(MISSPELT[name])
    assert http.get("/batches").json()["data"] == before


@pytest.mark.parametrize(("window", "seconds"), [("24h", 86400), ("1m", 60), ("7d", 604800), ("90m", 5400)])
def test_windows_other_than_a_day_are_accepted(client: openai.OpenAI, window: Any, seconds: int) -> None:
    batch = submit(client, chat_file(1), completion_window=window)
    assert batch.completion_window == window and batch.expires_at == batch.created_at + seconds


def test_output_expires_after_counts_from_the_output_files_creation(client: openai.OpenAI) -> None:
    batch = run(client, chat_file(1), output_expires_after={"anchor": "created_at", "seconds": 3600})
    file = client.files.retrieve(batch.output_file_id or "")
    assert file.expires_at == file.created_at + 3600


def test_an_unknown_batch_is_404(client: openai.OpenAI) -> None:
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_x'") as unknown:
            call("batch_x")
        assert (unknown.value.param, unknown.value.code) == (None, None)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_cancelling_an_ended_batch_is_409_and_is_asked_only_once(server: ServerProcess, status: str) -> None:
    requests: list[str] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: requests.append(str(request.url))]})
    client = openai.OpenAI(base_url=server.base_url, api_key="unused", http_client=http)
    batch = run(client, chat_file(1) if status == "completed" else chat_file(1) * 2)
    assert batch.status == status
    requests.clear()
    with pytest.raises(openai.ConflictError, match=f"Cannot cancel a batch with status '{status}'") as refused:
        client.batches.cancel(batch.id)
    assert len(requests) == 1
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert (refused.value.param, refused.value.code) == (None, None)


@pytest.fixture
def slow(data: Path) -> Any:
    with ServerProcess(data, *SLOW) as running:
        yield running


def test_a_cancelled_batch_keeps_its_results_and_every_line_is_in_one_file(slow: ServerProcess) -> None:
    client = checked_client(slow.base_url)
    batch = wait_until(client, submit(client, chat_file(40)), "in_progress", done=2)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    cancelling = client.batches.cancel(batch.id)
    assert cancelling.status == "cancelling" and cancelling.cancelling_at is not None
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = wait_until(client, batch)
    assert batch.status == "cancelled" and batch.cancelled_at is not None
    assert client.batches.cancel(batch.id).status == "cancelled"
    output, errors = both_files(client, batch)
    assert counts(batch) == (40, len(output), 0) and len(output) >= 2 and errors
    assert sorted(ids(output) + ids(errors)) == sorted(f"row-{index}" for index in range(40))
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}


def test_a_batch_cancelled_while_validating_has_every_line_in_the_error_file(client: openai.OpenAI) -> None:
    rows = 20_000
    batch = client.batches.cancel(submit(client, chat_file(rows)).id)
    assert batch.status == "cancelling"
    batch = wait_until(client, batch)
    output, errors = both_files(client, batch)
    assert batch.status == "cancelled" and len(output) + len(errors) == rows == batch.request_counts.total


def test_a_running_batch_survives_the_deletion_of_its_input(slow: ServerProcess) -> None:
    client = checked_client(slow.base_url)
    batch = wait_until(client, submit(client, chat_file(8)), "in_progress", done=1)
    client.files.delete(batch.input_file_id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.input_file_id)
    batch = wait_until(client, batch)
    assert batch.status == "completed" and counts(batch) == (8, 8, 0)


async def expire_now(data: Path, batch_id: str) -> None:
    """Move a stored batch's deadline to now, as though its window had passed while the server was down."""
    opened = OpenStorage(StorageSettings(data, None, None))
    storage = await opened.start()
    try:
        assert await storage.metadata.batches.change(batch_id, {"expires_at": int(time.time())}, expected="in_progress")
    finally:
        await opened.stop()


def test_an_expired_batch_keeps_its_results_and_cannot_be_cancelled(data: Path) -> None:
    server = ServerProcess(data, *SLOW).start()
    with server:
        client = checked_client(server.base_url)
        batch = wait_until(client, submit(client, chat_file(40)), "in_progress", done=2)
        server.stop()
        asyncio.run(expire_now(data, batch.id))
        server.start()
        client = checked_client(server.base_url)
        batch = wait_until(client, batch)
        output, errors = both_files(client, batch)
        assert batch.status == "expired" and batch.expired_at is not None
        assert counts(batch) == (40, len(output), 0) and len(output) >= 2
        assert sorted(ids(output) + ids(errors)) == sorted(f"row-{index}" for index in range(40))
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)


def test_defaults_of_a_batch_complete_its_lines_through_openais_client(client: openai.OpenAI) -> None:
    rows = [chat_line(f"row-{index}", f"candidate {index % 3}") for index in range(9)]
    for line in rows:
        del line["body"]["model"]
    rubric = {"role": "system", "content": "Rate the candidate. " * 50}
    defaults = {"model": "simulated", "temperature": 0, "messages": [rubric]}
    batch = run(client, jsonl(rows), extra_body={"defaults": defaults})
    assert batch.status == "completed" and counts(batch) == (9, 9, 0)
    output, _ = both_files(client, batch)
    assert ids(output) == [f"row-{index}" for index in range(9)]
    assert all(line["response"]["body"]["usage"]["prompt_tokens"] > 200 for line in output)
    plan = (batch.model_extra or {})["gristmill"]["plan"]
    assert (plan["deduplicated"], plan["prefix_groups"]) == (6, 1)


def test_defaults_that_are_no_object_are_a_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        submit(client, chat_file(1), extra_body={"defaults": ["model"]})
    assert refused.value.param == "defaults"


def test_a_priority_out_of_range_is_a_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        submit(client, chat_file(1), extra_body={"priority": 9})
    assert refused.value.param == "priority"
    assert run(client, chat_file(3), extra_body={"priority": -5}).status == "completed"
