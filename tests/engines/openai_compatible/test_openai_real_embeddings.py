"""Embeddings and ranks of a real llama.cpp server, directly and in batches: skipped unless it is built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai_real_server import KEY, RealServer, llama_cpp

from requests_jsonl import jsonl
from server_process import ServerProcess

pytestmark = pytest.mark.real_engine

MODEL = "smollm2-135m-instruct"
#: Any model will do for either; pooling is what models that embed or rank bring along.
KINDS = {"/v1/embeddings": ("--embeddings", "--pooling", "mean", "-ub", "2048"), "/v1/rerank": ("--reranking",)}


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with llama_cpp(MODEL, tmp_path_factory.mktemp("server") / "log", *KINDS[path]) as running:
        yield running


@pytest.fixture(scope="module")
def front(server: RealServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--engine", "openai_compatible", "--url", server.url, "-O", "api_key_env=TEST_ENGINE_KEY")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_ENGINE_KEY", KEY)
        with ServerProcess(tmp_path_factory.mktemp("front") / "data", *options) as running:
            yield running


def body(path: str, text: str = "an old mill") -> dict[str, Any]:
    if path == "/v1/rerank":
        return {"model": MODEL, "query": text, "documents": ["a stone wheel", "green cheese"]}
    return {"model": MODEL, "input": [text, "a stone wheel"]}


def test_what_the_server_was_started_for_is_found_out(front: ServerProcess, path: str) -> None:
    client = front.client()
    (model,) = client.models.list()
    offered = model.gristmill["endpoints"]  # type: ignore[attr-defined]
    assert path in offered and "/v1/moderations" not in offered
    # With --reranking it embeds as well, though badly.
    assert ("/v1/rerank" in offered) == (path == "/v1/rerank")
    file = client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    with pytest.raises(openai.BadRequestError, match=f"'/v1/moderations'. Supported values are: .*'{path}'"):
        client.batches.create(input_file_id=file.id, endpoint="/v1/moderations", completion_window="24h")


def test_an_answer_through_us_is_the_servers_own(server: RealServer, front: ServerProcess, path: str) -> None:
    with httpx.Client(timeout=120, headers={"Authorization": f"Bearer {KEY}"}) as http:
        for asked in (body(path), {"model": MODEL}, body(path) | {"input": [], "documents": []}):
            direct = http.post(f"{server.url}{path}", json=asked)
            through = http.post(f"{front.base_url.removesuffix('/v1')}{path}", json=asked)
            assert through.status_code == direct.status_code
            if direct.status_code == 200:
                assert through.content == direct.content
            else:
                said, wanted = through.json()["error"], direct.json()["error"]
                assert said == {"param": None, **wanted}


def test_a_batch_runs_through(front: ServerProcess, path: str) -> None:
    client = front.client()
    lines = [
        {"custom_id": f"row-{n}", "method": "POST", "url": path, "body": body(path, f"mill {n}")} for n in range(8)
    ]
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=path, completion_window="24h")  # type: ignore[arg-type]
    while batch.status not in ("completed", "failed"):
        batch = client.batches.retrieve(batch.id)
    rows = [json.loads(line) for line in client.files.content(str(batch.output_file_id)).text.splitlines()]
    assert [row["custom_id"] for row in rows] == [line["custom_id"] for line in lines]
    answers = [row["response"]["body"] for row in rows]
    assert all(len(answer["data" if path == "/v1/embeddings" else "results"]) == 2 for answer in answers)
    assert batch.usage.input_tokens == sum(answer["usage"]["prompt_tokens"] for answer in answers) > 0


def test_the_official_client_gets_vectors(server: RealServer, front: ServerProcess, path: str) -> None:
    if path != "/v1/embeddings":
        pytest.skip("it has no call for ranks")
    direct = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    for form in ({}, {"encoding_format": "float"}):
        asked = {"model": MODEL, "input": ["an old mill", "a wheel"]} | form
        vectors = [each.embedding for each in front.client().embeddings.create(**asked).data]
        assert vectors == [each.embedding for each in direct.embeddings.create(**asked).data]
        assert len(vectors) == 2 and len(vectors[0]) == 576
    with pytest.raises(openai.BadRequestError) as refused:
        front.client(max_retries=0).embeddings.create(model=MODEL, input="far " * 4000)
    assert refused.value.code == "context_length_exceeded"
