"""The table of clients: its page, and the wire tap that sees what clients send. The clients themselves are tried by
``make test-clients``."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import pytest

from clients import results, table
from clients.results import CallResult, ClientResult, Receipt
from clients.tap import Tap
from server_process import ServerProcess

DOCS = Path(__file__).parent.parent / "docs" / "reference"


def test_the_page_says_what_the_last_run_found():
    assert (DOCS / "clients.md").read_text() == table.page(results.load(DOCS / "clients.json"))


def test_what_failed_is_shown_with_its_reason():
    calls = [
        CallResult("good", "embedded", "passed", "", ["POST /v1/responses"]),
        CallResult("bad", "simulated", "failed", "Error: a | b\nc", []),
        CallResult("known", "simulated", "cannot", "It asks for the moon.", []),
    ]
    page = table.page(
        Receipt({"Python": "3"}, {"x": ClientResult("X", {"x": "1.2"}, "setup", "2026-01-02", "0", calls)})
    )
    assert "| [X](#x) | x 1.2 | 1 of 3 |" in page
    assert "| good | `POST /v1/responses` | works (*embedded*) |" in page
    assert "| bad |  | **fails**: Error: a \\| b c |" in page
    assert "| known |  | cannot, see below |" in page and "\nIt asks for the moon." in page


def test_the_tap_sees_every_request_and_changes_none(server: ServerProcess):
    with Tap(server.base_url) as tap:
        client = openai.OpenAI(base_url=tap.base_url, api_key="unused", max_retries=0)
        began = time.time()
        streamed = client.chat.completions.create(
            model="simulated", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        text = "".join(each.choices[0].delta.content or "" for each in streamed)
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve("batch_none")
        seen = tap.between(began, time.time())
        straight = server.client().chat.completions.create(
            model="simulated", messages=[{"role": "user", "content": "Hello"}]
        )
    assert text == straight.choices[0].message.content
    assert [(each.method, each.path, each.status) for each in seen] == [
        ("POST", "/v1/chat/completions", 200),
        ("GET", "/v1/batches/batch_none", 404),
    ]
    assert b'"Hello"' in seen[0].body and seen[0].answer.endswith(b"data: [DONE]\n\n")
