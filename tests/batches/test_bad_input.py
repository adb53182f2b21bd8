"""Whatever comes in, the answer is the documented one, and the server stays up.

The tables are in ``bad_lines`` and ``bad_requests``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest
from bad_lines import (
    ACCEPTED,
    GOOD,
    NOT_JSONL,
    REJECTED,
    ROW_FAILS,
    Expected,
    Refusal,
    after_good,
    body,
    file_of,
    line,
    raw_body,
    raw_line,
)
from bad_requests import CREATE_REFUSED, FORMS, LISTS

from requests_jsonl import CHAT
from server_process import ServerProcess


def table(cases: dict[str, Any]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("case", cases.values(), ids=list(cases))


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base_url, timeout=120) as client:
        yield client


@pytest.fixture(autouse=True)
def same_process(server: ServerProcess) -> Iterator[None]:
    pid = server.pid
    yield
    assert server.alive() and server.pid == pid


def upload(http: httpx.Client, data: bytes, purpose: str = "batch") -> httpx.Response:
    return http.post("/files", data={"purpose": purpose}, files={"file": ("rows.jsonl", data)})


def finish(http: httpx.Client, file_id: str, endpoint: str = CHAT) -> dict[str, Any]:
    """A batch from a file, once it has ended."""
    request = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
    batch: dict[str, Any] = http.post("/batches", json=request).json()
    deadline = time.monotonic() + 60
    while batch["status"] not in ("completed", "failed"):
        assert time.monotonic() < deadline, batch
        assert not (batch["gristmill"] or {}).get("waiting_for"), batch
        time.sleep(0.01)
        batch = http.get(f"/batches/{batch['id']}").json()
    return batch


def batch_of(http: httpx.Client, data: bytes) -> dict[str, Any]:
    answer = upload(http, data)
    assert answer.status_code == 200, answer.text
    return finish(http, answer.json()["id"])


def lines_of(http: httpx.Client, file_id: str | None) -> list[dict[str, Any]]:
    """Read as clients read: ``splitlines`` also cuts at U+2028 and its like."""
    if file_id is None:
        return []
    text = http.get(f"/files/{file_id}/content").text
    assert text.isascii()
    return [json.loads(each) for each in text.splitlines()]


def refusal(answer: httpx.Response) -> Refusal:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert len(error["message"]) < 70_000
    return answer.status_code, error["code"], error["param"]


@table(NOT_JSONL)
def test_what_is_not_jsonl_is_refused_at_upload(http: httpx.Client, case: bytes) -> None:
    answer = upload(http, case)
    assert refusal(answer) == (400, None, None)
    assert answer.json()["error"]["message"] == "Invalid file format for Batch API. Must be .jsonl"
    assert upload(http, case, purpose="user_data").status_code == 200


@table(REJECTED)
def test_a_bad_line_fails_the_batch_with_every_error_and_nothing_runs(
    http: httpx.Client, case: tuple[bytes, Expected]
) -> None:
    data, expected = case
    batch = batch_of(http, data)
    assert batch["status"] == "failed" and batch["failed_at"] and batch["in_progress_at"] is None
    assert [(e["line"], e["code"], e["param"]) for e in batch["errors"]["data"]] == expected
    assert all(len(error["message"]) < 1_000 for error in batch["errors"]["data"])
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert batch["output_file_id"] is None and batch["error_file_id"] is None


@pytest.fixture(scope="module")
def failing_rows(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """All of them in one batch, with good rows between them: name -> line of the error file."""
    lines = []
    for name, (pair, _) in ROW_FAILS.items():
        lines += [raw_body(pair, json.dumps(name).encode()), line(custom_id=f"a good row after {name}")]
    batch = batch_of(http, file_of(*lines))
    assert batch["status"] == "completed" and batch["errors"] is None
    assert batch["request_counts"] == {
        "total": len(lines), "completed": len(ROW_FAILS), "failed": len(ROW_FAILS),
    }  # fmt: skip
    good = [answer["custom_id"] for answer in lines_of(http, batch["output_file_id"])]
    assert good == [f"a good row after {name}" for name in ROW_FAILS]
    return {answer["custom_id"]: answer for answer in lines_of(http, batch["error_file_id"])}


@pytest.mark.parametrize("name", ROW_FAILS)
def test_a_row_that_cannot_be_answered_has_its_own_http_error_and_spoils_no_other(
    failing_rows: dict[str, dict[str, Any]], name: str
) -> None:
    answer = failing_rows[name]
    error = answer["response"]["body"]["error"]
    assert answer["error"] is None
    assert (answer["response"]["status_code"], error["code"], error["param"]) == ROW_FAILS[name][1]
    assert error["type"] == "invalid_request_error" and error["message"]


@table(ACCEPTED)
def test_what_is_odd_but_valid_is_answered(http: httpx.Client, case: tuple[bytes, list[str]]) -> None:
    data, custom_ids = case
    batch = batch_of(http, data)
    assert batch["status"] == "completed", batch["errors"]
    answers = lines_of(http, batch["output_file_id"])
    assert [answer["custom_id"] for answer in answers] == custom_ids
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    assert batch["error_file_id"] is None


def test_unicode_line_separators_in_an_error_text_do_not_tear_its_line(http: httpx.Client) -> None:
    name = "temp\u2028rat\u2029u\u0085re"
    batch = batch_of(http, file_of(body(**{name: 1})))
    (answer,) = lines_of(http, batch["error_file_id"])
    assert answer["response"]["body"]["error"]["param"] == name


def test_messages_of_the_contract_are_word_for_word(http: httpx.Client) -> None:
    lines = [b"notes", line(custom_id=None), line(custom_id="good"), line(custom_id="u", url="/v1/completions"),
             body(stream=True, messages=None)]  # fmt: skip
    batch = batch_of(http, after_good(*lines))
    assert [error["message"] for error in batch["errors"]["data"]] == [
        "This line is not parseable as valid JSON.",
        "Missing required parameter: 'custom_id'.",
        "The custom_id 'good' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch.",
        "The URL provided for this request does not match the batch endpoint.",
        "Messages parameter is required.",
        "Chat Completions: Streaming is not supported in the Batch API.",
    ]


def test_the_deepest_nesting_that_is_accepted_also_runs(http: httpx.Client) -> None:
    # How deep JSON may nest depends on the stack it is parsed on; what validation let in must not stop the runner.
    low, high = 1, 2_000
    while high - low > 1:
        depth = (low + high) // 2
        nested = b"[" * depth + b"]" * depth
        status = batch_of(http, after_good(raw_line(extra=b'"skipped":' + nested + b",")))["status"]
        low, high = (depth, high) if status == "completed" else (low, depth)
    assert low > 100


def test_a_hundred_thousand_bad_lines_are_listed_up_to_a_limit_that_is_said(http: httpx.Client) -> None:
    batch = batch_of(http, after_good(*[b"notes"] * 100_000))
    errors = batch["errors"]["data"]
    assert [error["line"] for error in errors] == [*range(2, 10_002), None]
    assert "90,000 more" in errors[-1]["message"]


def test_huge_values_are_not_repeated_in_full_in_errors(http: httpx.Client) -> None:
    huge = "x" * 1_000_000
    lines = [line(custom_id=huge)] * 20 + [line(custom_id="u", url=huge), line(custom_id="m", method=huge)]
    batch = batch_of(http, file_of(*lines, body(model=huge)))
    assert len(batch["errors"]["data"]) == 22
    assert len(json.dumps(batch)) < 50_000


def test_a_file_that_is_not_there_or_not_for_batches_fails_the_batch(http: httpx.Client) -> None:
    other = upload(http, file_of(GOOD), purpose="user_data").json()["id"]
    for file_id in ("file-none", other, "x" * 128, "../gristmill.db", "a\0b"):
        batch = finish(http, file_id)
        (error,) = batch["errors"]["data"]
        assert (batch["status"], error["code"], error["param"]) == ("failed", "invalid_request", "file_id")
        assert error["line"] is None


def test_lines_of_another_endpoint_fail_the_batch(http: httpx.Client) -> None:
    batch = finish(http, upload(http, file_of(GOOD)).json()["id"], endpoint="/v1/completions")
    codes = {(error["code"], error["param"]) for error in batch["errors"]["data"]}
    assert codes == {("invalid_url", "url"), ("invalid_request", "body.prompt")}


@table(CREATE_REFUSED)
def test_a_bad_request_for_a_batch_is_a_400_and_makes_no_batch(
    http: httpx.Client, case: tuple[bytes, tuple[str | None, str | None]]
) -> None:
    data, expected = case
    before = http.get("/batches?limit=1").json()["first_id"]
    answer = http.post("/batches", content=data, headers={"content-type": "application/json"})
    assert refusal(answer) == (400, *expected)
    assert http.get("/batches?limit=1").json()["first_id"] == before


@table(FORMS)
def test_a_bad_form_is_refused_and_leaves_no_bytes_behind(
    http: httpx.Client, server: ServerProcess, case: tuple[str, bytes, Refusal]
) -> None:
    content_type, data, expected = case
    before = set((server.data / "blobs").rglob("*"))
    answer = http.post("/files", content=data, headers={"content-type": content_type})
    assert refusal(answer) == expected
    assert set((server.data / "blobs").rglob("*")) == before


@table(LISTS)
def test_a_bad_list_or_name_is_refused(http: httpx.Client, case: tuple[str, Refusal]) -> None:
    path, expected = case
    assert refusal(http.get(path)) == expected


def test_after_all_this_the_server_is_up_and_small(server: ServerProcess, http: httpx.Client) -> None:
    assert http.get(server.base_url.removesuffix("/v1") + "/ready").status_code == 200
    assert batch_of(http, file_of(GOOD))["status"] == "completed"
    memory = psutil.Process(server.pid).memory_info().rss
    print(f"resident memory: {memory / 1e6:.0f} MB")
    assert memory < 600e6
    assert not [entry for entry in server.log if "Traceback" in entry]
