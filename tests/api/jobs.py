"""Batches in tests: made, waited for, and their two files read."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
from contract import check_error, check_schema
from openai.types import Batch

from requests_jsonl import CHAT

ENDED = ("completed", "failed", "expired", "cancelled")
TIMESTAMPS = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at",
              "cancelled_at")  # fmt: skip


def submit(client: openai.OpenAI, data: bytes, **options: Any) -> Batch:
    file = client.files.create(file=data, purpose="batch")
    given: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h"} | options
    return client.batches.create(input_file_id=file.id, **given)


def wait_until(client: openai.OpenAI, batch: Batch, *statuses: str, done: int = 0) -> Batch:
    """Until the batch has one of the statuses and ``done`` rows have a result; ended batches by default."""
    for _ in range(1_500):
        batch = client.batches.retrieve(batch.id)
        if batch.status in (statuses or ENDED) and batch.request_counts.completed >= done:
            return batch
        time.sleep(0.02)
    raise AssertionError(f"the batch is still {batch.status}: {batch.request_counts}")


def run(client: openai.OpenAI, data: bytes, **options: Any) -> Batch:
    return wait_until(client, submit(client, data, **options))


def lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a result file, each checked; none where there is no file."""
    if file_id is None:
        return []
    text = client.files.content(file_id).text
    assert text.isascii() and text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
        assert (line["response"] is None) != (line["error"] is None)
        if line["response"] is None:
            assert set(line["error"]) == {"code", "message"}
        elif line["response"]["status_code"] == 200:
            chat = line["response"]["body"]["object"] == "chat.completion"
            check_schema(
                "CreateChatCompletionResponse" if chat else "CreateCompletionResponse", line["response"]["body"]
            )
        else:
            check_error(line["response"]["body"])
    return found


def both_files(client: openai.OpenAI, batch: Batch) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return lines(client, batch.output_file_id), lines(client, batch.error_file_id)


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in found]


def set_timestamps(batch: Batch) -> set[str]:
    return {name for name in TIMESTAMPS if getattr(batch, name) is not None}
