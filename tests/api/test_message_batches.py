"""Anthropic's Message Batches API by its official SDK, and by others at the same time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types.messages import MessageBatch
from anthropic_client import ENTRY, check_error, ended, entries, entry, message_client, results, user, waited
from contract import checked_client

from requests_jsonl import chat_file, jsonl
from server_process import ServerProcess

VERSION = {"anthropic-version": "2023-06-01"}
SLOW = ("--engine-option", "latency=0.2", "--engine-option", "slots=2", "--stop-grace", "0")
PATH = "/v1/messages/batches"


@pytest.fixture(scope="module")
def claude(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with message_client(server) as client:
        yield client


@pytest.fixture(scope="module")
def plain(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url.removesuffix("/v1"), headers=VERSION, timeout=60) as client:
        yield client


@pytest.fixture
def slow(data: Path) -> Iterator[ServerProcess]:
    with ServerProcess(data, *SLOW) as running:
        yield running


def counts(batch: MessageBatch) -> dict[str, int]:
    return {name: count for name, count in batch.request_counts.to_dict().items() if count}


def blobs(data: Path) -> set[str]:
    """Compare with ``<=``: what batches of other tests leave may go meanwhile, their empty files after their end."""
    return {path.name for path in (data / "blobs").rglob("*") if path.is_file()}


def test_a_batch_from_its_creation_to_its_deletion(server: ServerProcess, claude: anthropic.Anthropic) -> None:
    before = blobs(server.data)
    made = claude.messages.batches.create(requests=[*entries(5), entry("bad", max_tokens=0), entry("worse", zzz=1)])
    assert MessageBatch.model_validate(made.to_dict()) and made.id.startswith("msgbatch_")
    assert (made.processing_status, counts(made), made.results_url) == ("in_progress", {"processing": 7}, None)
    assert (made.expires_at - made.created_at).total_seconds() == 86400
    batch = ended(claude, made.id)
    assert counts(batch) == {"succeeded": 5, "errored": 2} and batch.ended_at is not None
    assert batch.results_url == f"{server.base_url}/messages/batches/{batch.id}/results"
    found = results(claude, batch.id)
    assert set(found) == {*(f"row-{index}" for index in range(5)), "bad", "worse"}
    for index in range(5):
        result = found[f"row-{index}"].result
        assert result.type == "succeeded" and result.message.content[0].type == "text"
        assert result.message.usage.output_tokens == 8
    error = found["bad"].result
    assert error.type == "errored" and error.error.error.type == "invalid_request_error"
    assert "max_tokens" in error.error.error.message and (error.error.request_id or "").startswith("req_")
    deleted = claude.messages.batches.delete(batch.id)
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    for call in (claude.messages.batches.retrieve, claude.messages.batches.cancel, claude.messages.batches.delete):
        with pytest.raises(anthropic.NotFoundError):
            call(batch.id)
    assert blobs(server.data) <= before


def test_one_batch_in_both_dialects(server: ServerProcess, claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    made = claude.messages.batches.create(requests=entries(3))
    ended(claude, made.id)
    batch = client.batches.retrieve(made.id.removeprefix("msg"))
    assert batch.id in [each.id for each in client.batches.list(limit=5)]
    assert (batch.endpoint, batch.status, batch.request_counts and batch.request_counts.completed) == (
        "/v1/messages", "completed", 3,
    )  # fmt: skip
    assert batch.usage is not None and batch.usage.output_tokens == 24
    files = {file.id: file for file in client.files.list()}
    assert files[batch.input_file_id].filename == f"{made.id}.jsonl"
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id or "").text.splitlines()]
    assert [line["response"]["body"]["type"] for line in lines] == ["message"] * 3
    sent = client.files.content(batch.input_file_id).content
    again = client.batches.create(
        input_file_id=client.files.create(file=sent, purpose="batch").id,
        endpoint="/v1/messages",  # type: ignore[arg-type]
        completion_window="24h",
        metadata={"by": "OpenAI's client"},
    )
    assert set(results(claude, ended(claude, f"msg{again.id}").id)) == {"row-0", "row-1", "row-2"}
    # Its input is its maker's, who may use it for another.
    claude.messages.batches.delete(f"msg{again.id}")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve(again.id)
    assert client.files.retrieve(again.input_file_id).id == again.input_file_id
    claude.messages.batches.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)


def test_a_message_batch_is_retried_and_the_retry_goes_with_its_input(
    server: ServerProcess, claude: anthropic.Anthropic, client: openai.OpenAI, plain: httpx.Client
) -> None:
    first = ended(claude, claude.messages.batches.create(requests=[*entries(2), entry("bad", max_tokens=0)]).id)
    before = blobs(server.data)
    retry = plain.post(f"/v1/batches/batch_{first.id.removeprefix('msgbatch_')}/retry").raise_for_status().json()
    assert retry["endpoint"] == "/v1/messages" and retry["request_counts"]["total"] == 1
    seen = ended(claude, f"msgbatch_{retry['id'].removeprefix('batch_')}")
    assert (counts(seen), list(results(claude, seen.id))) == ({"errored": 1}, ["bad"])
    claude.messages.batches.delete(seen.id)
    assert blobs(server.data) <= before
    # What was deleted is no retry any more.
    again = plain.get(f"/v1/batches/{retry['gristmill']['retry_of']}").json()
    assert again["gristmill"]["retried_by"] is None


def test_batches_of_other_endpoints_are_not_message_batches(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    file = client.files.create(file=chat_file(1), purpose="batch")
    other = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert f"msg{other.id}" not in [batch.id for batch in claude.messages.batches.list()]
    for wrong in (f"msg{other.id}", other.id, "msgbatch_x", "x", "msg" * 1000):
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.batches.retrieve(wrong)


def test_lists_page_in_both_directions(data: Path) -> None:
    with ServerProcess(data) as server, message_client(server) as claude:
        assert claude.messages.batches.list().to_dict() == {
            "data": [], "has_more": False, "first_id": None, "last_id": None,
        }  # fmt: skip
        made = [claude.messages.batches.create(requests=entries(1)).id for _ in range(7)]
        assert [batch.id for batch in claude.messages.batches.list(limit=2)] == made[::-1]
        page = claude.messages.batches.list(limit=2, before_id=made[2])
        assert ([batch.id for batch in page.data], page.has_more) == ([made[4], made[3]], True)
        pages = list(claude.messages.batches.list(limit=2, before_id=made[2]).iter_pages())
        assert [[batch.id for batch in page.data] for page in pages] == [
            [made[4], made[3]], [made[6], made[5]],
        ]  # fmt: skip
        ended(claude, made[4])
        claude.messages.batches.delete(made[4])
        # Whoever is in the middle of the list goes on there.
        assert [batch.id for batch in claude.messages.batches.list(after_id=made[4])] == made[3::-1]
        for odd in ({"limit": 0}, {"limit": 1001}, {"after_id": "msgbatch_x"}, {"before_id": "é"},
                    {"after_id": made[0], "before_id": made[1]}):  # fmt: skip
            with pytest.raises(anthropic.BadRequestError):
                claude.messages.batches.list(**odd)  # type: ignore[arg-type]


def test_results_and_deletion_wait_for_the_end(slow: ServerProcess) -> None:
    with message_client(slow) as claude, httpx.Client(headers=VERSION) as http:
        made = claude.messages.batches.create(requests=entries(40))
        running = waited(claude, made.id, lambda batch: batch.request_counts.succeeded >= 2)
        assert running.processing_status == "in_progress" and sum(counts(running).values()) == 40
        answer = http.get(f"{slow.base_url}/messages/batches/{made.id}/results")
        assert answer.status_code == 404 and "has no available results" in answer.json()["error"]["message"]
        with pytest.raises(anthropic.BadRequestError, match="Cancel it first"):
            claude.messages.batches.delete(made.id)
        canceling = claude.messages.batches.cancel(made.id)
        assert canceling.processing_status == "canceling" and canceling.cancel_initiated_at is not None
        batch = ended(claude, made.id)
        found = results(claude, made.id)
        kinds = {custom_id: each.result.type for custom_id, each in found.items()}
        assert len(kinds) == 40 and set(kinds.values()) == {"succeeded", "canceled"}
        succeeded = sum(kind == "succeeded" for kind in kinds.values())
        assert counts(batch) == {"succeeded": succeeded, "canceled": 40 - succeeded} and succeeded >= 2
        # Again is no error; a batch that has completed cannot be cancelled.
        assert claude.messages.batches.cancel(made.id).processing_status == "ended"
        other = ended(claude, claude.messages.batches.create(requests=entries(1)).id)
        with pytest.raises(anthropic.ConflictError):
            claude.messages.batches.cancel(other.id)


def test_two_dialects_cancel_at_once(slow: ServerProcess) -> None:
    with message_client(slow) as claude, checked_client(slow.base_url) as other:
        made = claude.messages.batches.create(requests=entries(40))
        waited(claude, made.id, lambda batch: batch.request_counts.succeeded >= 1)
        said: list[str] = []
        calls = [lambda: said.append(claude.messages.batches.cancel(made.id).processing_status),
                 lambda: said.append(other.batches.cancel(made.id.removeprefix("msg")).status)] * 4  # fmt: skip
        threads = [threading.Thread(target=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(said) == 8 and set(said) <= {"canceling", "cancelling", "ended", "cancelled"}
        assert set(counts(ended(claude, made.id))) == {"succeeded", "canceled"}


def test_two_delete_at_once(claude: anthropic.Anthropic) -> None:
    made = ended(claude, claude.messages.batches.create(requests=entries(1)).id)
    said: list[object] = []

    def delete() -> None:
        try:
            said.append(claude.messages.batches.delete(made.id).type)
        except anthropic.NotFoundError as error:
            said.append(error.status_code)

    threads = [threading.Thread(target=delete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, said)) == ["404"] * 5 + ["message_batch_deleted"]


def test_results_that_were_deleted_are_gone(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    made = ended(claude, claude.messages.batches.create(requests=entries(2)).id)
    output = client.batches.retrieve(made.id.removeprefix("msg")).output_file_id
    assert output is not None
    client.files.delete(output)
    with pytest.raises(anthropic.NotFoundError, match="deleted"):
        claude.messages.batches.results(made.id)
    claude.messages.batches.delete(made.id)


def test_a_batch_that_openais_rules_reject_says_why(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/messages", "body": {"messages": []}}
    file = client.files.create(file=jsonl([line]), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/messages", completion_window="24h")  # type: ignore[arg-type]
    found = ended(claude, f"msg{batch.id}")
    assert found.results_url is None
    with pytest.raises(anthropic.NotFoundError, match="line 1: Model parameter"):
        claude.get(f"{PATH}/{found.id}/results", cast_to=object)


def test_the_same_request_sent_again_creates_nothing_more(plain: httpx.Client) -> None:
    def create(body: Any) -> httpx.Response:
        return plain.post(PATH, json={"requests": body}, headers={"Idempotency-Key": "k1"})

    first, again = create(entries(3)), create(entries(3))
    assert first.status_code == again.status_code == 200 and first.json() == again.json()
    other = create(entries(4))
    assert other.status_code == 400
    check_error(other)


def listed(plain: httpx.Client) -> list[str]:
    while True:
        found = plain.get(PATH).json()["data"]
        if all(batch["processing_status"] == "ended" for batch in found):
            return [batch["id"] for batch in found]
        time.sleep(0.02)


BAD: list[tuple[Any, str]] = [
    ([], "at least one"),
    ("x", "expected an array"),
    ([{"params": ENTRY}], "requests[0].custom_id"),
    ([entry("a"), entry("b"), entry("a")], "requests[2].custom_id"),
    ([entry("a" * 65)], "^[a-zA-Z0-9_-]{1,64}$"),
    ([entry("")], "^[a-zA-Z0-9_-]{1,64}$"),
    ([entry("a b")], "^[a-zA-Z0-9_-]{1,64}$"),
    ([entry("ä")], "^[a-zA-Z0-9_-]{1,64}$"),
    ([entry("a\n")], "^[a-zA-Z0-9_-]{1,64}$"),
    ([{"custom_id": 1, "params": {}}], "requests[0].custom_id"),
    ([{"custom_id": "a"}], "requests[0].params"),
    ([{"custom_id": "a", "params": []}], "requests[0].params"),
    ([{"custom_id": "a", "params": {}}], "requests[0].params.model"),
    ([entry("a"), entry("b", model="claude")], "requests[1].params.model"),
    ([entry("a", model=3)], "requests[0].params.model"),
    ([entry("a", stream=True)], "requests[0].params.stream"),
    ([entry("a") | {"method": "POST"}], "requests[0].method"),
    ([entry("a"), 1], "requests[1]"),
    ([None], "requests[0]"),
]


@pytest.mark.parametrize(("requests", "said"), BAD)
def test_what_would_end_the_whole_batch_is_refused_at_once(
    server: ServerProcess, plain: httpx.Client, requests: Any, said: str
) -> None:
    before, stored = listed(plain), blobs(server.data)
    answer = plain.post(PATH, json={"requests": requests})
    assert answer.status_code in (400, 404), answer.text
    check_error(answer)
    assert said in answer.json()["error"]["message"]
    assert listed(plain) == before and blobs(server.data) <= stored


DEEP = b"[" * 5000 + b"]" * 5000
ODD_PARAMS = [
    b'{"model": "\xff"}', b'{"model": "simulated", "x": 01}', b'{"model": "\\ud800"}',
    b'{"model": "simulated", "messages": "\\ud800"}', b'{"model": "simulated", "x": ' + DEEP + b"}",
]  # fmt: skip
NOT_JSON = [
    b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"requests": [' + b"[" * 100_000, b'{"requests": [{]}]}',
    b'{"a": 1, "requests": []}', b'{"requests": [}',
    b'{"requests": [{"custom_id": "a", "params": {"model": "simulated"}}], "requests": []}',
    *(b'{"requests": [{"custom_id": "a", "params": ' + odd + b"}]}" for odd in ODD_PARAMS),
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON)
def test_no_body_is_a_500(server: ServerProcess, plain: httpx.Client, body: bytes) -> None:
    answer = plain.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    check_error(answer)
    assert not any("unexpected" in line for line in server.log)


def test_odd_params_are_their_own_requests_failures(claude: anthropic.Anthropic, plain: httpx.Client) -> None:
    odd: list[Any] = [
        {}, {"messages": None}, {"messages": user("a"), "max_tokens": 2**70}, {"messages": [{"role": "tool"}]},
        {"max_tokens": 1, "messages": user("a"), "system": {"a": [1]}},
    ]  # fmt: skip
    requests = [{"custom_id": str(n), "params": {"model": "simulated"} | each} for n, each in enumerate(odd)]
    answer = plain.post(PATH, content=json.dumps({"requests": [*requests, entry("good")]}),
                        headers={"Content-Type": "application/json"})  # fmt: skip
    assert answer.status_code == 200, answer.text
    found = results(claude, ended(claude, answer.json()["id"]).id)
    assert {custom_id for custom_id, each in found.items() if each.result.type == "succeeded"} == {"good"}


MANY = 100_000


@pytest.fixture(scope="module")
def many() -> bytes:
    return json.dumps({"requests": entries(MANY)}).encode()


def test_a_hundred_thousand_requests_are_one_batch_and_one_more_is_too_many(plain: httpx.Client, many: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    made = plain.post(PATH, content=many, headers=headers)
    assert made.status_code == 200 and made.json()["request_counts"]["processing"] == MANY
    plain.post(f"{PATH}/{made.json()['id']}/cancel").raise_for_status()
    more = plain.post(PATH, content=many[:-2] + b"," + json.dumps(entry("more")).encode() + b"]}", headers=headers)
    assert more.status_code == 400 and "at most 100,000" in more.json()["error"]["message"]


def test_a_client_that_leaves_in_the_middle_leaves_nothing(data: Path, many: bytes) -> None:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\nContent-Length: {len(many)}\r\n\r\n"
    ).encode()
    with ServerProcess(data) as server, message_client(server) as claude, checked_client(server.base_url) as other:
        address = ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
        for share in (0.4, 0.999999):
            with socket.create_connection(address) as connection:
                connection.sendall(head + many[: int(len(many) * share)])
        deadline = time.monotonic() + 30
        while sum("client went away" in line for line in server.log) != 2:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.02)
        while blobs(server.data):
            assert time.monotonic() < deadline, blobs(server.data)
            time.sleep(0.02)
        assert other.files.list().data == other.batches.list().data == claude.messages.batches.list().data == []
