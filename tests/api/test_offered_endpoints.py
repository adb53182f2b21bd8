"""Which endpoints there are is said beforehand, and by a refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from requests_jsonl import chat_line, jsonl


def test_the_models_say_what_can_be_asked_of_them(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.gristmill["endpoints"][:2] == ["/v1/chat/completions", "/v1/completions"]  # type: ignore[attr-defined]


def test_a_batch_that_the_engine_cannot_answer_is_refused_at_once(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", jsonl([chat_line("a", "Hi")])), purpose="batch")
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(input_file_id=file.id, endpoint="/v1/moderations", completion_window="24h")
    body = json.loads(refused.value.response.text)["error"]
    assert body["param"] == "endpoint" and body["code"] == "invalid_value"
    assert body["message"].startswith("Invalid value: '/v1/moderations'. Supported values are: '/v1/chat/completions',")
    assert "/v1/moderations" not in body["message"].partition("Supported")[2]


def test_a_run_that_the_engine_cannot_answer_ends_before_it_begins(tmp_path: Path) -> None:
    body = {"model": "simulated", "query": "which?", "documents": ["this"]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/rerank", "body": body}
    (tmp_path / "in.jsonl").write_bytes(jsonl([line]))
    command = [sys.executable, "-m", "gristmill", "run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = " ".join(done.stderr.split())
    assert done.returncode != 0 and "Traceback" not in said
    assert "The simulated engine cannot answer /v1/rerank" in said and "It answers: /v1/chat/completions" in said
    assert "/v1/responses, /v1/messages" in said
    assert not (tmp_path / "out.jsonl").exists()
