"""``/v1/embeddings``, by the official client: directly and as lines of a batch, on the simulated engine."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import httpx
import openai
import pytest

from requests_jsonl import jsonl
from server_process import ServerProcess

EMBEDDINGS = "/v1/embeddings"


def line(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS, "body": {"model": "simulated", **body}}


def run(client: openai.OpenAI, lines: list[dict[str, Any]], **given: Any) -> tuple[Any, dict[str, Any]]:
    """The ended batch, and the bodies of its lines by their id, of both files."""
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=EMBEDDINGS, completion_window="24h", **given)
    while batch.status not in ("completed", "failed"):
        batch = client.batches.retrieve(batch.id)
    found: dict[str, Any] = {}
    for name in (batch.output_file_id, batch.error_file_id):
        for text in client.files.content(name).text.splitlines() if name else []:
            row = json.loads(text)
            found[row["custom_id"]] = row["response"]["body"]
    return batch, found


def unpacked(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def test_the_client_gets_the_same_vector_in_either_form(client: openai.OpenAI) -> None:
    # It asks for base64 unless told otherwise, and decodes it.
    packed = client.embeddings.create(model="simulated", input="ten years in a mill")
    plain = client.embeddings.create(model="simulated", input=["ten years in a mill"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-7)
    assert len(plain.data[0].embedding) == 64 and packed.usage.total_tokens == packed.usage.prompt_tokens > 0
    assert math.hypot(*plain.data[0].embedding) == pytest.approx(1.0, abs=1e-5)


def test_texts_that_share_words_are_near_each_other(client: openai.OpenAI) -> None:
    texts = ["an old miller", "the old miller", "green cheese"]
    vectors = [each.embedding for each in client.embeddings.create(model="simulated", input=texts).data]
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > 0.5 > far


def test_a_batch_gives_each_line_what_it_asked_for(client: openai.OpenAI) -> None:
    lines = [
        line("float", input="one", encoding_format="float"),
        line("base64", input="one", encoding_format="base64"),
        line("several", input=["one", "two"], dimensions=8),
        line("tokens", input=[[1, 2], [3]]),
        line("empty", input=""),
        line("none", input=[]),
        line("mixed", input=["a", 1]),
        line("many", input=["a"] * 2049),
        line("large", input="a", dimensions=65),
    ]
    batch, found = run(client, lines)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (4, 5)
    number, text = found["float"]["data"][0]["embedding"], found["base64"]["data"][0]["embedding"]
    assert unpacked(text) == pytest.approx(number, abs=1e-7)
    assert [each["index"] for each in found["several"]["data"]] == [0, 1]
    assert [len(each["embedding"]) for each in found["several"]["data"]] == [8, 8]
    assert len(found["tokens"]["data"]) == 2
    params = {name: found[name]["error"]["param"] for name in ("empty", "none", "mixed", "many", "large")}
    assert params == dict.fromkeys(("empty", "none", "mixed", "many"), "input") | {"large": "dimensions"}
    usages = [found[name]["usage"]["prompt_tokens"] for name in ("float", "base64", "several", "tokens")]
    assert batch.usage.input_tokens == sum(usages) and batch.usage.output_tokens == 0


def test_no_number_is_written_with_more_digits_than_float32_has(client: openai.OpenAI) -> None:
    _, found = run(client, [line("a", input="how many digits", encoding_format="float")])
    numbers = found["a"]["data"][0]["embedding"]
    assert all(len(repr(abs(number)).replace("0.", "").lstrip("0")) <= 9 for number in numbers)
    assert all(struct.unpack("f", struct.pack("f", number))[0] == pytest.approx(number, rel=1e-6) for number in numbers)


def test_as_many_inputs_as_openai_takes_are_answered_and_one_more_is_refused(http: httpx.Client) -> None:
    body = {"model": "simulated", "input": [f"candidate {n}" for n in range(2048)], "encoding_format": "base64"}
    answer = http.post("/embeddings", json=body)
    assert [each["index"] for each in answer.json()["data"]] == list(range(2048))
    refused = http.post("/embeddings", json=body | {"input": [*body["input"], "one more"]})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "array_above_max_length"


def test_lines_that_ask_the_same_are_asked_once_and_share_no_prefix(client: openai.OpenAI) -> None:
    lines = [line(f"row-{n}", input=f"{'a long beginning ' * 40}{n // 2}") for n in range(20)]
    batch, found = run(client, lines)
    assert len(found) == 20
    plan = batch.gristmill["plan"]
    assert plan["deduplicated"] == 10 and plan["prefix_groups"] == 0
    # About four bytes a token; nothing is saved by a prefix.
    assert plan["estimated_prompt_tokens"] == pytest.approx(20 * 170, rel=0.1)
    assert plan["estimated_computed_tokens"] == pytest.approx(10 * 170, rel=0.1)


def test_a_line_without_input_is_found_before_anything_runs(client: openai.OpenAI) -> None:
    batch, _ = run(client, [line("a", input="x"), line("b")])
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert (error.line, error.param, error.message) == (2, "body.input", "Input parameter is required.")


def test_an_input_that_is_too_long_is_refused_whole(tmp_path: Any) -> None:
    with (
        ServerProcess(tmp_path / "data", "-O", "context_length=16") as server,
        pytest.raises(openai.BadRequestError, match="maximum context length is 16 tokens") as refused,
    ):
        server.client(max_retries=0).embeddings.create(model="simulated", input=["short", "long " * 40])
    assert refused.value.code == "context_length_exceeded" and refused.value.param == "input"


def test_a_batch_that_is_cancelled_half_way_keeps_its_vectors(tmp_path: Any) -> None:
    with ServerProcess(tmp_path / "data", "-O", "latency=0.05", "-O", "slots=2") as server:
        client = server.client()
        file = client.files.create(
            file=("in.jsonl", jsonl([line(f"row-{n}", input=f"text {n}") for n in range(400)])), purpose="batch"
        )
        batch = client.batches.create(input_file_id=file.id, endpoint=EMBEDDINGS, completion_window="24h")
        while not batch.request_counts or batch.request_counts.completed < 10:
            batch = client.batches.retrieve(batch.id)
        client.batches.cancel(batch.id)
        while batch.status != "cancelled":
            batch = client.batches.retrieve(batch.id)
        answered = client.files.content(str(batch.output_file_id)).text.splitlines()
        never_ran = client.files.content(str(batch.error_file_id)).text.splitlines()
    assert len(answered) == batch.request_counts.completed >= 10 and len(answered) + len(never_ran) == 400
    assert all(len(json.loads(each)["response"]["body"]["data"][0]["embedding"]) == 64 for each in answered)
