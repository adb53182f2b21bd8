from __future__ import annotations

import httpx
import openai
import pytest
from contract import check_error

CALLS = {
    "unknown path": ("GET", "/nowhere", 404, "unknown_url"),
    "wrong method": ("PUT", "/files", 405, "method_not_supported"),
    "not json": ("POST", "/batches", 400, None),
    "no body": ("POST", "/chat/completions", 400, None),
    "no form": ("POST", "/files", 400, "unsupported_content_type"),
    "unknown file": ("GET", "/files/file-x", 404, None),
    "unknown batch": ("GET", "/batches/batch_x", 404, None),
    "unknown upload": ("POST", "/uploads/upload_x/cancel", 404, None),
}


@pytest.mark.parametrize("case", CALLS)
def test_every_error_is_openais_error_object_with_all_four_keys(http: httpx.Client, case: str) -> None:
    method, path, status, code = CALLS[case]
    headers = {} if path == "/files" else {"content-type": "application/json"}
    answer = http.request(method, path, content=b"" if method != "POST" else b"{broken", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    check_error(answer.json())
    assert code is None or answer.json()["error"]["code"] == code


def test_the_request_id_reaches_the_clients_exception(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.files.retrieve("file-x")
    assert unknown.value.request_id is not None and unknown.value.request_id.startswith("req_")
    assert unknown.value.body is not None


def test_request_ids_differ(http: httpx.Client) -> None:
    assert http.get("/models").headers["x-request-id"] != http.get("/models").headers["x-request-id"]
