"""A prefix that rows share outlives the engine's process: read from the disk, not computed again, and the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.embedded.prefix_files.prefix_folder import prefix_files, prefixes_folder
from gristmill.engines.protocol import Completion, LabelRequest, LabelScores
from gristmill.engines.registry import open_tokenizer
from gristmill.wire.completions import CompletionRequest
from server_process import ServerProcess

RUBRIC = "You grade answers of pupils from 0 to 10. " + " ".join(
    f"{number}. An answer that names {number} sacks of grain is worth {number % 11} points." for number in range(1, 40)
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the models, and what was made of them, but without prefixes."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for made in ("models", "openvino", "kernels", "precision"):
        (cache / made).symlink_to(Path(os.environ["GRISTMILL_CACHE"]) / made)
    monkeypatch.setenv("GRISTMILL_CACHE", str(cache))


@asynccontextmanager
async def running(model: str, **options: object) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(OpenVinoOptions(**({"kv_cache_gb": 0.3} | options)), model)  # type: ignore[arg-type]
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def row(number: int) -> str:
    counted = ", ".join(f"{number * place} in barn {place}" for place in range(1, 9))
    return f"{RUBRIC}\nThe answer: I counted {counted}. Points:"


async def score(engine: OpenVinoEngine, number: int, interactive: bool = False) -> LabelScores:
    labels = [str(points) for points in range(11)]
    return await engine.score(
        LabelRequest(model=engine.models[0], prompt=row(number), labels=labels), interactive=interactive
    )


async def answer(engine: OpenVinoEngine, number: int) -> Completion:
    return await engine.complete(
        CompletionRequest(prompt=row(number), model=engine.models[0], temperature=0, max_tokens=4, logprobs=5)
    )


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not what():
            await asyncio.sleep(0.02)


async def keep_rubric(engine: OpenVinoEngine) -> None:
    for number in range(100, 104):
        await score(engine, number)
    await eventually(lambda: len(prefix_files(prefixes_folder())) == 1)


def worker() -> psutil.Process:
    (found,) = (each for each in psutil.Process().children() if "embedded.worker" in " ".join(each.cmdline()))
    return found


async def test_after_a_kill_the_first_row_finds_the_rubric_and_nothing_is_different(pulled_model: str) -> None:
    rubric = len(open_tokenizer(pulled_model).of_request(CompletionRequest(prompt=RUBRIC, model=pulled_model)))
    async with running(pulled_model) as engine:
        assert (await score(engine, 1)).cached_tokens == 0
        scores, completion = await score(engine, 2), await answer(engine, 3)
        assert scores.cached_tokens is not None and scores.cached_tokens >= rubric
        await keep_rubric(engine)
        os.kill(worker().pid, signal.SIGKILL)
        await eventually(lambda: engine.down_reason is not None)
        await eventually(lambda: engine.down_reason is None)
        again = await score(engine, 2)
        assert again.cached_tokens is not None and again.cached_tokens >= rubric
        assert again.logprobs == scores.logprobs
    # And in another process, on another day.
    async with running(pulled_model) as engine:
        later = await answer(engine, 3)
        assert later.cached_tokens is not None and later.cached_tokens >= rubric
        assert later.choices[0].text == completion.choices[0].text
        assert (await score(engine, 2)).logprobs == pytest.approx(scores.logprobs, abs=1e-4)


def test_a_server_that_is_killed_in_the_middle_of_a_batch_goes_on_without_computing_the_rubric(
    pulled_model: str, tmp_path: Path
) -> None:
    options = ["--engine", "openvino", "--model", pulled_model, "-O", "kv_cache_gb=0.3", "-O", "max_rows=4"]
    server = ServerProcess(tmp_path / "data", *options)
    with server:
        client = server.client()
        lines = [
            {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/completions",
             "body": {"model": pulled_model, "prompt": row(number), "temperature": 0, "max_tokens": 8}}
            for number in range(40)
        ]  # fmt: skip
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = client.files.create(file=("rows.jsonl", content), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
        wait_until(lambda: len(prefix_files(prefixes_folder())) == 1)
        server.kill()
    with server:
        client = server.client()
        wait_until(lambda: client.batches.retrieve(batch.id).status == "completed")
        output = client.batches.retrieve(batch.id).output_file_id
        assert output is not None
        answers = [json.loads(line)["response"]["body"] for line in client.files.content(output).text.splitlines()]
    assert len(answers) == 40
    rubric = len(open_tokenizer(pulled_model).of_request(CompletionRequest(prompt=RUBRIC, model=pulled_model)))
    cached = sorted(answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers)
    # Before the kill it was computed once.
    assert cached[1] >= rubric
    assert sum("was read from the disk" in line for line in server.log) == 1


def wait_until(what: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


async def test_what_computes_otherwise_does_not_read_it(pulled_model: str) -> None:
    async with running(pulled_model) as engine:
        await keep_rubric(engine)
    async with running(pulled_model, attention="openvino") as other:
        assert (await score(other, 1)).cached_tokens == 0
        # What OpenVINO's own attention has written is read by the same.
        for number in range(100, 104):
            expected = await score(other, number)
        await eventually(lambda: len(prefix_files(prefixes_folder())) == 2)
    async with running(pulled_model, attention="openvino") as other:
        found = await score(other, 103)
        assert found.cached_tokens and found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


async def test_a_damaged_file_is_computed_again_and_said_once(pulled_model: str, capfd: pytest.CaptureFixture) -> None:
    async with running(pulled_model) as engine:
        await keep_rubric(engine)
        expected = await score(engine, 2)
    ((path, size, _),) = prefix_files(prefixes_folder())
    with path.open("r+b") as file:
        file.seek(size * 2 // 3)
        file.write(b"damaged")
    async with running(pulled_model) as engine:
        # What comes before the damage is used.
        found = await score(engine, 1)
        assert found.cached_tokens is not None and expected.cached_tokens is not None
        assert 0 < found.cached_tokens < expected.cached_tokens
        again = await score(engine, 2)
        assert again.cached_tokens == expected.cached_tokens
        assert again.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert capfd.readouterr().err.count("holds what was not written to it") <= 1


async def test_nothing_is_kept_of_interactive_requests_or_where_it_is_switched_off(pulled_model: str) -> None:
    async with running(pulled_model) as engine:
        for number in range(6):
            await score(engine, number, interactive=True)
    async with running(pulled_model, prefix_disk_gb=0.0) as engine:
        for number in range(6):
            await score(engine, number)
    assert prefix_files(prefixes_folder()) == []
