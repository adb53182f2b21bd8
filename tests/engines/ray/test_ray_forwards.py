"""Replicas in front of a real llama.cpp server: what is asked goes there as it came, and so does what comes back."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "openai_compatible"))

import openai_real_server
from openai_real_server import RealServer

from server_process import ServerProcess

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

pytestmark = pytest.mark.real_engine

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    log = tmp_path_factory.mktemp("llama") / "log"
    with openai_real_server.llama_cpp(MODEL, log) as server:
        yield server


@pytest.fixture(scope="module")
def client(llama: RealServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    options = ["--engine", "ray", "--replicas", "2", "--replica-engine", "openai_compatible", "--url", llama.url]
    with pytest.MonkeyPatch.context() as patch:
        # A cluster that is started here has this process's environment.
        patch.setenv("LLAMA_KEY", openai_real_server.KEY)
        with ServerProcess(tmp_path_factory.mktemp("data"), *options, "-O", "api_key_env=LLAMA_KEY") as server:
            yield server.client(timeout=120, max_retries=0)
            server.stop()


def chat(client: openai.OpenAI, text: str, **parameters: object) -> openai.types.chat.ChatCompletion:
    given = {"max_tokens": 6, "temperature": 0.0, **parameters}
    messages = [{"role": "user", "content": text}]
    answer: openai.types.chat.ChatCompletion = client.chat.completions.create(  # type: ignore[call-overload]
        model=MODEL, messages=messages, **given
    )
    return answer


def test_an_answer_has_what_only_the_server_knows_of(client: openai.OpenAI) -> None:
    answer = chat(client, "Say hello.", extra_body={"top_k": 1, "cache_prompt": True})
    assert answer.choices[0].message.content
    # llama.cpp's own.
    assert (answer.model_extra or {})["timings"]["predicted_n"] == 6


def test_a_stream_comes_piece_by_piece_and_says_the_same(client: openai.OpenAI) -> None:
    whole = chat(client, "Say hello.").choices[0].message.content
    messages = [{"role": "user", "content": "Say hello."}]
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6, temperature=0.0, stream=True)  # type: ignore[call-overload]
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert len(chunks) > 4


def test_the_servers_refusal_is_passed_on(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"context") as raised:
        chat(client, "word " * 5000)
    assert raised.value.code == "context_length_exceeded"
    assert chat(client, "Say hello.").usage


def test_streams_that_are_cut_off_free_the_servers_slots(client: openai.OpenAI) -> None:
    for _ in range(4):
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Count."}], max_tokens=1900, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        next(iter(stream))
        stream.close()
    assert chat(client, "Say hello.").usage


def test_a_batch_waits_for_a_server_that_went_away_and_answers_every_row_once(
    client: openai.OpenAI, llama: RealServer, tmp_path: Path
) -> None:
    lines = []
    for number in range(60):
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"Row {number}."}], "max_tokens": 3}
        lines.append({"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    uploaded = client.files.create(file=(tmp_path / "rows.jsonl").open("rb"), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    killed = False
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
        if not killed and batch.request_counts and batch.request_counts.completed >= 5:
            llama.kill()
            time.sleep(1.0)
            llama.__enter__()
            killed = True
    assert killed and batch.request_counts and batch.request_counts.completed == 60, batch
    answers = client.files.content(batch.output_file_id or "").text.splitlines()
    assert sorted(int(json.loads(line)["custom_id"]) for line in answers) == list(range(60))
