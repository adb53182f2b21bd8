from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from requests_jsonl import jsonl
from server_process import ServerProcess

LABELS = [str(number) for number in range(11)]


def score(server: ServerProcess, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.base_url}/score", json={"model": "simulated"} | body)


def test_each_item_gets_a_probability_for_each_label_in_order(server: ServerProcess) -> None:
    answer = score(server, query="Rate: ", items=["one", "two", "three"], labels=LABELS).json()
    assert answer["object"] == "scoring"
    assert [len(scores) for scores in answer["scores"]] == [11, 11, 11]
    assert all(0 < value < 1 for scores in answer["scores"] for value in scores)
    assert answer["usage"]["completion_tokens"] == 0


def test_softmax_makes_the_labels_share_one(server: ServerProcess) -> None:
    (scores,) = score(server, query="Rate: ", items="one", labels=LABELS, apply_softmax=True).json()["scores"]
    assert sum(scores) == pytest.approx(1)


def test_the_item_may_come_first(server: ServerProcess) -> None:
    there = score(server, query="a", items="b", labels=["x", "y"], item_first=True).json()["scores"]
    assert there == score(server, query="ba", labels=["x", "y"]).json()["scores"]


def test_chat_messages_and_token_ids_are_taken(server: ServerProcess) -> None:
    messages = [{"role": "user", "content": "Rate this."}]
    assert len(score(server, messages=messages, label_token_ids=[5, 9]).json()["scores"][0]) == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "a"}, "labels"),
        ({"query": "a", "labels": []}, "labels"),
        ({"query": "a", "labels": ["x", "x"]}, "labels"),
        ({"query": "a", "labels": ["x", ""]}, "labels"),
        ({"query": "a", "labels": ["x"], "label_token_ids": [1]}, "labels"),
        ({"labels": ["x"]}, "query"),
        ({"query": "a", "labels": ["x"], "continue_final_message": True}, "continue_final_message"),
        ({"query": "a", "items": [], "labels": ["x"]}, "items"),
        ({"query": "a", "items": [[1, 2]], "labels": ["x"]}, "items"),
        ({"query": "a", "messages": [{"role": "user", "content": "b"}], "labels": ["x"]}, "messages"),
        ({"query": "a", "labels": ["x"], "top_k": 3}, "top_k"),
        ({"query": "a", "labels": ["x"], "model": "other"}, "model"),
    ],
)
def test_a_request_that_cannot_be_scored_is_refused_by_name(
    server: ServerProcess, body: dict[str, Any], param: str
) -> None:
    answer = score(server, **body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_a_batch_of_scores_runs_like_any_other(server: ServerProcess) -> None:
    lines = [
        {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/score",
         "body": {"model": "simulated", "query": f"Candidate {number}: ", "labels": LABELS}}
        for number in range(50)
    ]  # fmt: skip
    client = server.client()
    file = client.files.create(file=jsonl(lines), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/score", completion_window="24h")  # type: ignore[arg-type]
    while batch.status not in ("completed", "failed"):
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch.errors
    assert batch.output_file_id
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [result["custom_id"] for result in results] == [line["custom_id"] for line in lines]
    assert all(len(result["response"]["body"]["scores"][0]) == 11 for result in results)
