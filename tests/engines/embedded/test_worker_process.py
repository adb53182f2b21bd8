"""The worker process of the embedded engine when it is killed, stopped, fed what it cannot read, or will not load."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import pytest_asyncio

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop
from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.embedded.worker.heartbeat import Heartbeat
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import LabelRequest
from gristmill.models.locate import locate
from gristmill.telemetry.metrics import REGISTRY
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = OpenVinoOptions(kv_cache_gb=0.2, step_tokens=256)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(pulled_model):
    engine = OpenVinoEngine(OPTIONS, pulled_model, Heartbeat(interval=0.25, silence=2.0))
    await engine.start()
    yield engine
    await engine.stop()


def capital(model: str = "smollm2-135m-instruct") -> CompletionRequest:
    return CompletionRequest(prompt="The capital of France is", model=model, temperature=0, max_tokens=1)


def long_story(**parameters) -> ChatCompletionRequest:
    """An answer that does not end by itself for minutes."""
    asked = {
        "messages": [{"role": "user", "content": "Tell a very long story."}],
        "model": "smollm2-135m-instruct",
        "max_tokens": 4000,
        "logit_bias": {"2": -100, "0": -100},
    }
    return msgspec.convert(asked | parameters, ChatCompletionRequest)


async def eventually(what: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.05)


async def text_of(engine: OpenVinoEngine, request) -> str:
    return (await engine.complete(request)).choices[0].text


def worker_pid() -> int:
    (worker,) = workers()
    return worker.pid


def workers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if _is_worker(each)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "gristmill.engines.embedded.worker.worker" in process.cmdline()
    except psutil.Error:
        return False


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def restarts() -> float:
    return REGISTRY.get_sample_value("gristmill_engine_restarts_total") or 0.0


async def test_a_killed_worker_starts_again_by_itself_and_what_it_computed_was_interrupted(engine, capsys):
    before, first = restarts(), worker_pid()
    running = [asyncio.create_task(engine.complete(long_story())) for _ in range(3)]
    await asyncio.sleep(0.5)
    os.kill(first, signal.SIGKILL)
    for task in running:
        with pytest.raises(EngineError, match="SIGKILL") as caught:
            await task
        # Each may have killed it: an attempt of its own, and no outage of all.
        assert caught.value.kind is ErrorKind.INTERRUPTED
    await eventually(lambda: "SIGKILL" in (engine.down_reason or ""))
    # Nobody asks anything.
    await eventually(lambda: engine.down_reason is None)
    assert worker_pid() != first
    assert restarts() == before + 1
    assert await text_of(engine, capital()) == " Paris"


def long_row(number: int) -> CompletionRequest:
    """Its prompt fills a step, and is nobody else's."""
    prompt = " ".join(f"{number * word} sacks of grain" for word in range(50))
    return CompletionRequest(prompt=prompt, model="smollm2-135m-instruct", temperature=0, max_tokens=3)


async def test_interactive_requests_that_abort_steps_are_cancelled_and_the_worker_killed_among_them(engine):
    rows = [asyncio.create_task(text_of(engine, long_row(number))) for number in range(1, 6)]
    for wait in (0.05, 0.0, 0.2, 0.01, 0.1):
        abandoned = asyncio.create_task(engine.complete(capital(), interactive=True))
        await asyncio.sleep(wait)
        abandoned.cancel()
        assert (await engine.complete(capital(), interactive=True)).choices[0].text == " Paris"
    found = await asyncio.gather(*rows)
    running = [asyncio.create_task(engine.complete(long_row(number))) for number in range(6, 10)]
    await asyncio.sleep(0.2)
    running.append(asyncio.create_task(engine.complete(capital(), interactive=True)))
    await asyncio.sleep(0.01)
    os.kill(worker_pid(), signal.SIGKILL)
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(outcome, EngineError) and outcome.kind is ErrorKind.INTERRUPTED
    await eventually(lambda: engine.down_reason is None)
    # Nothing is cached any more, and nobody aborts a step.
    assert [await text_of(engine, long_row(number)) for number in range(1, 6)] == found


async def test_a_request_that_comes_while_it_starts_again_waits_and_is_answered(engine):
    os.kill(worker_pid(), signal.SIGKILL)
    await eventually(lambda: engine.down_reason is not None)
    assert await text_of(engine, capital()) == " Paris"


async def test_a_stopped_worker_is_told_within_seconds_and_goes_on_where_it_was(engine):
    pid = worker_pid()
    in_flight = asyncio.create_task(engine.complete(capital()))
    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: engine.down_reason is not None, seconds=20)
        assert "has not answered for" in engine.down_reason
        with pytest.raises(EngineError) as caught:
            await engine.complete(capital())
        assert caught.value.kind is ErrorKind.UNAVAILABLE
    finally:
        os.kill(pid, signal.SIGCONT)
    await eventually(lambda: engine.down_reason is None, seconds=20)
    assert (await in_flight).choices[0].text == " Paris"
    assert worker_pid() == pid


async def test_a_long_step_is_no_silence(engine, pulled_model):
    """A step of several seconds, against a silence of one and a half."""
    busy = OpenVinoEngine(
        OpenVinoOptions(kv_cache_gb=0.5, step_tokens=4096), pulled_model, Heartbeat(interval=0.25, silence=1.5)
    )
    await busy.start()
    try:
        words = "stone water wheel grain " * 300
        asking = asyncio.create_task(
            busy.complete(CompletionRequest(prompt=words, model=busy.models[0], temperature=0, max_tokens=1))
        )
        seen = set()
        while not asking.done():
            seen.add(busy.down_reason)
            await asyncio.sleep(0.05)
        await asking
        assert seen == {None}
    finally:
        await busy.stop()


async def test_a_worker_stuck_in_one_step_is_killed_and_replaced(pulled_model):
    engine = OpenVinoEngine(
        OpenVinoOptions(kv_cache_gb=0.5, step_tokens=4096), pulled_model, Heartbeat(interval=0.1, stuck=0.3)
    )
    await engine.start()
    try:
        words = "stone water wheel grain " * 300
        with pytest.raises(EngineError, match="one step or request") as caught:
            await engine.complete(CompletionRequest(prompt=words, model=engine.models[0], temperature=0, max_tokens=1))
        assert caught.value.kind is ErrorKind.INTERRUPTED
        await eventually(lambda: engine.down_reason is None)
    finally:
        await engine.stop()


async def test_a_worker_stuck_in_preparing_a_request_is_killed_and_replaced(pulled_model):
    engine = OpenVinoEngine(OPTIONS, pulled_model, Heartbeat(interval=0.05, stuck=0.3))
    await engine.start()
    try:
        # A grammar that takes seconds to compile.
        properties = {"properties": {f"p{i}": {} for i in range(3500)}}
        with pytest.raises(EngineError, match="one step or request") as caught:
            await engine.complete(long_story(structured_outputs={"json": properties}, max_tokens=1))
        assert caught.value.crashed is not None
        await eventually(lambda: engine.down_reason is None)
    finally:
        await engine.stop()


async def test_a_row_that_kills_the_worker_each_time_ends_with_the_reason_and_the_others_are_answered(pulled_model):
    """Its prompt makes a step of many seconds, where a worker is killed after three."""
    engine = OpenVinoEngine(
        OpenVinoOptions(kv_cache_gb=0.5, step_tokens=8192, max_rows=4), pulled_model, Heartbeat(interval=0.2, stuck=3.0)
    )
    await engine.start()
    try:
        dispatcher = Dispatcher(engine, policy=RetryPolicy(max_attempts=2))
        killer = CompletionRequest(
            prompt="stone water wheel grain " * 1200, model=engine.models[0], temperature=0, max_tokens=1
        )
        before = restarts()
        rows = [capital(engine.models[0]) for _ in range(8)]
        rows.insert(4, killer)
        answers = await asyncio.gather(*(dispatcher.ask(row, Stop()) for row in rows), return_exceptions=True)
        failed = answers.pop(4)
        assert [each.choices[0].text for each in answers] == [" Paris"] * 8
        assert isinstance(failed, EngineError)
        assert failed.kind is ErrorKind.INTERRUPTED
        assert "one step" in failed.message
        # Once among others, and once or twice alone.
        assert 2 <= restarts() - before <= 4
    finally:
        await engine.stop()


async def test_abandoned_requests_stop_computing_at_the_next_step(engine):
    pid = worker_pid()
    story = asyncio.create_task(engine.complete(long_story()))
    prompt = "stone water wheel grain " * 1000
    scoring = asyncio.create_task(
        engine.score(LabelRequest(model=engine.models[0], prompt=prompt, labels=["yes", "no"]))
    )
    await asyncio.sleep(0.5)
    for task in (story, scoring):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def idle() -> bool:
        before = cpu_seconds(pid)
        await asyncio.sleep(0.5)
        return cpu_seconds(pid) - before < 0.1

    async with asyncio.timeout(20):
        while not await idle():
            pass
    assert worker_pid() == pid


HOSTILE: dict[str, dict] = {
    "a bias for a token of 5,000 digits": {"logit_bias": {"1" * 5000: 1}},
    "a schema nested 5,000 deep, as a text": {"structured_outputs": {"json": "[" * 5000 + "]" * 5000}},
    "a schema nested 200 deep": {"structured_outputs": {"json": None}},
    "a regular expression nested 20,000 deep": {"structured_outputs": {"regex": "(" * 20000 + "a" + ")" * 20000}},
    "a regular expression that explodes": {"structured_outputs": {"regex": "(a{1000}b){1000}"}},
    "half a surrogate pair": {"structured_outputs": {"choice": ["\ud800"]}},
    "a constant of 300 digits": {"structured_outputs": {"json": {"const": 10**300}}},
    "a reference to itself": {"structured_outputs": {"json": {"$ref": "#"}}},
    "a stop of a million characters, and a bias out of the vocabulary": {
        "stop": ["x" * 1_000_000], "logit_bias": {str(2**70): 1},
    },
}  # fmt: skip


def _deep() -> dict:
    deep: dict = {"type": "integer"}
    for _ in range(200):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    return deep


async def test_hostile_requests_fail_alone(engine):
    pid = worker_pid()
    HOSTILE["a schema nested 200 deep"]["structured_outputs"]["json"] = _deep()
    ordinary = [engine.complete(capital()) for _ in range(20)]
    hostile = [engine.complete(long_story(**parameters, max_tokens=20)) for parameters in HOSTILE.values()]
    hostile.append(
        engine.complete(CompletionRequest(prompt=[2**70], model=engine.models[0], temperature=0, max_tokens=1))
    )
    answers = await asyncio.gather(*ordinary, *hostile, return_exceptions=True)
    assert [each.choices[0].text for each in answers[:20]] == [" Paris"] * 20
    for name, error in zip([*HOSTILE, "a token id of 2**70"], answers[20:], strict=True):
        assert isinstance(error, EngineError), name
        assert (error.kind, error.status) == (ErrorKind.INVALID_REQUEST, 400), f"{name}: {error.message}"
    assert worker_pid() == pid


async def test_a_request_nested_too_deeply_for_the_pipe_is_refused_by_itself(engine):
    pid = worker_pid()
    for depth in (500, 900, 100_000):
        deep: list = []
        for _ in range(depth):
            deep = [deep]
        request = long_story(max_tokens=2)
        request.structured_outputs = {"json": {"const": deep}}
        with pytest.raises(EngineError) as caught:
            await engine.complete(request)
        assert caught.value.status == 400
    assert worker_pid() == pid


@contextmanager
def killing_each_new_worker() -> Iterator[list[int]]:
    """As the system does where a model needs more memory than there is."""
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set():
            for worker in workers():
                if worker.pid not in killed:
                    killed.append(worker.pid)
                    worker.kill()
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


async def test_a_model_that_ends_each_worker_while_it_loads_is_told_apart_and_tried_again(engine, capsys):
    with killing_each_new_worker() as killed:
        await eventually(lambda: "3 times in a row" in (engine.down_reason or ""))
        assert "ends while it loads the model (signal SIGKILL" in engine.down_reason
        # The reason stays while it is tried again; nothing waits for it.
        with pytest.raises(EngineError, match="cannot start") as caught:
            await engine.complete(capital())
        assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert len(killed) <= 6
    await eventually(lambda: engine.down_reason is None)
    assert await text_of(engine, capital()) == " Paris"


async def test_a_model_that_has_gone_is_named_and_found_again(pulled_model, tmp_path: Path):
    source = locate(pulled_model).path
    copy = tmp_path / source.name
    shutil.copyfile(source, copy)
    engine = OpenVinoEngine(OPTIONS, str(copy))
    await engine.start()
    try:
        copy.rename(tmp_path / "elsewhere")
        # The one that has just been started shares this process.
        os.kill(max(worker.pid for worker in workers()), signal.SIGKILL)
        await eventually(lambda: "cannot start" in (engine.down_reason or ""))
        assert copy.name in engine.down_reason
        (tmp_path / "elsewhere").rename(copy)
        await eventually(lambda: engine.down_reason is None)
    finally:
        await engine.stop()
