"""Anthropic's official client, unchanged, with every answer checked on its way in; and batches as it makes them."""

from __future__ import annotations

import time
from typing import Any

import anthropic
import httpx
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from server_process import ServerProcess

ENTRY = {"model": "simulated", "max_tokens": 8}


def message_client(server: ServerProcess, **options: Any) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(event_hooks={"response": [check_answer]})
    root = server.base_url.removesuffix("/v1")
    return anthropic.Anthropic(base_url=root, api_key="unused", http_client=http, **({"max_retries": 0} | options))


def check_answer(response: Any) -> None:
    """An event hook: an id, and errors of Anthropic's shape."""
    assert response.headers["request-id"].startswith("req_")
    if response.status_code >= 400:
        response.read()
        check_error(response)


def check_error(response: httpx.Response) -> None:
    body = response.json()
    assert set(body) == {"type", "error", "request_id"} and body["type"] == "error", body
    assert set(body["error"]) == {"type", "message"}, body
    assert body["request_id"] == response.headers["request-id"]


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def entry(custom_id: str, text: str | None = None, **params: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": ENTRY | {"messages": user(text or f"Rate {custom_id}.")} | params}


def entries(count: int, **params: Any) -> list[dict[str, Any]]:
    return [entry(f"row-{index}", **params) for index in range(count)]


def ended(client: anthropic.Anthropic, batch_id: str) -> MessageBatch:
    return waited(client, batch_id, lambda batch: batch.processing_status == "ended")


def waited(client: anthropic.Anthropic, batch_id: str, until: Any) -> MessageBatch:
    for _ in range(1_500):
        batch = client.messages.batches.retrieve(batch_id)
        counts = batch.request_counts
        if until(batch):
            return batch
        time.sleep(0.02)
    raise AssertionError(f"still {batch.processing_status}: {counts}")


def results(client: anthropic.Anthropic, batch_id: str) -> dict[str, MessageBatchIndividualResponse]:
    """By their custom_id, each checked, and none twice."""
    found = {}
    for each in client.messages.batches.results(batch_id):
        MessageBatchIndividualResponse.model_validate(each.to_dict())
        assert each.custom_id not in found
        found[each.custom_id] = each
    return found
