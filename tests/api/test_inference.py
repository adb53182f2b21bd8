from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from contract import checked_client

from server_process import ServerProcess

ASK: Any = {"model": "simulated", "messages": [{"role": "user", "content": "Rate this."}]}


def test_a_chat_completion_streamed_is_the_one_answered_at_once(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK)
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1 and all(chunk.usage is None for chunk in chunks)


def test_a_text_completion_streamed_is_the_one_answered_at_once(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="simulated", prompt="Rate this.")
    chunks = list(client.completions.create(model="simulated", prompt="Rate this.", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_usage_comes_in_a_last_chunk_without_choices_where_asked(client: openai.OpenAI) -> None:
    last = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))[-1]
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens > 0
    text = list(
        client.completions.create(model="simulated", prompt="Hi", stream=True, stream_options={"include_usage": True})
    )[-1]
    assert text.choices == [] and text.usage is not None and text.usage.total_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_text_is_an_ordinary_http_error(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**ASK | {"model": "nobody"}, stream=stream)
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_store_is_refused_by_name_because_nothing_could_be_looked_up(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ASK, store=True, stream=stream)
    assert (refused.value.param, refused.value.code) == ("store", "unsupported_parameter")
    assert client.chat.completions.create(**ASK, store=False).choices


def test_a_reader_who_leaves_stops_the_request_and_not_the_server(tmp_path: Path) -> None:
    journal = tmp_path / "answered"
    options = ("--engine-option", "decode_speed=8", "--engine-option", f"journal={journal}")
    with ServerProcess(tmp_path / "data", *options) as server:
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=ASK | {"stream": True}) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
        # The request would have taken one second; one that is begun after it takes as long.
        checked_client(server.base_url).completions.create(model="simulated", prompt="the other")
        time.sleep(0.2)
        assert journal.read_text().splitlines() == ["the other"]


def test_models_can_be_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["simulated"]
    assert client.models.retrieve("simulated").object == "model"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("nobody/here")
    assert unknown.value.code == "model_not_found"


def test_what_is_not_offered_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not offer /v1/images/generations. It offers: ") as images:
        client.images.generate(model="simulated", prompt="text")
    with pytest.raises(openai.NotFoundError, match="cannot answer /v1/moderations") as moderations:
        client.moderations.create(model="simulated", input="text")
    assert images.value.code == moderations.value.code == "unsupported_endpoint"


def test_health_ready_and_metrics_answer(server: ServerProcess) -> None:
    root = server.base_url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").json() == {"status": "ok"}
    assert httpx.get(f"{root}/ready").json()["status"] == "ready"
    metrics = httpx.get(f"{root}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain") and "gristmill_" in metrics.text


def test_a_client_that_offers_http2_is_answered_with_its_body_read(http: httpx.Client) -> None:
    """As Java's HttpClient and ``curl --http2`` do."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    for _ in range(2):
        answer = http.post("/chat/completions", json=ASK, headers=offer)
        assert answer.status_code == 200, answer.text
        assert http.get("/models", headers=offer).status_code == 200
    long = ASK | {"user": "\r\nupgrade: \r\n\r\n" * 50_000}
    assert http.post("/chat/completions", json=long, headers=offer).status_code == 200
