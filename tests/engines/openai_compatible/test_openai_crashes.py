"""Rows that kill their server: each ends as itself with the reason, and nobody else with it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest
from mortal_server import MortalServer
from openai_real_server import KEY, RealServer, llama_cpp
from openai_stand_in import Play, StandIn, chat, play, recording

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.fair_share import Flow
from gristmill.dispatch.outage import Outage
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions
from gristmill.engines.protocol import Completion
from gristmill.wire.chat import ChatCompletionRequest, Message
from requests_jsonl import chat_line, jsonl

POLICY = RetryPolicy(max_attempts=4, first_delay=0.02, max_delay=0.05)
ROWS = 200


def rows(killers: int, what: str = "KILL") -> list[str]:
    marked = {(2 * each + 1) * ROWS // (2 * killers) for each in range(killers)}
    return [f"row {number:03}" + (f" {what}" if number in marked else "") for number in range(ROWS)]


@asynccontextmanager
async def dispatching(*servers: MortalServer, parallel: int = 16):
    options = OpenAICompatibleOptions(parallel=parallel)
    engine = OpenAICompatibleEngine(options, ",".join(server.url for server in servers))
    await engine.start()
    dispatcher = Dispatcher(engine, policy=POLICY)
    dispatcher.outage = Outage(first_delay=0.05, max_delay=0.2)
    try:
        yield dispatcher
    finally:
        await engine.stop()


async def ask(dispatcher: Dispatcher, text: str, flow: str = "batch") -> Completion | EngineError:
    request = ChatCompletionRequest([Message("user", text)], "m")
    try:
        return await dispatcher.ask(request, Stop(), Flow(flow))
    except EngineError as error:
        return error


@pytest.mark.parametrize("killers", [1, 3])
async def test_each_row_that_kills_its_server_ends_with_the_reason_and_every_other_is_answered(tmp_path, killers):
    texts = rows(killers)
    with MortalServer(tmp_path) as server:
        async with dispatching(server) as dispatcher, asyncio.timeout(120):
            results = dict(zip(texts, await asyncio.gather(*(ask(dispatcher, text) for text in texts)), strict=True))
        asked = server.asked()
    failed = {text: result for text, result in results.items() if isinstance(result, EngineError)}
    assert set(failed) == {text for text in texts if "KILL" in text}
    for text, error in failed.items():
        assert error.kind is ErrorKind.INTERRUPTED
        assert "broke while it was answering" in error.message and "no other request in flight" in error.message
        # One more for each crash that was another killer's; one fewer where that came before the server had read it.
        assert POLICY.max_attempts - 1 <= asked[text] < POLICY.max_attempts + killers
    assert all(1 <= asked[text] <= killers + 2 for text in texts if text not in failed)
    assert server.deaths <= sum(asked[text] for text in failed)


async def test_a_row_whose_connection_is_closed_each_time_ends_as_itself(tmp_path):
    texts = rows(2, "BREAK")
    with MortalServer(tmp_path) as server:
        async with dispatching(server) as dispatcher, asyncio.timeout(60):
            results = await asyncio.gather(*(ask(dispatcher, text) for text in texts))
        asked = server.asked()
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, EngineError) == ("BREAK" in text)
        assert asked[text] == 1 or ("BREAK" in text and asked[text] <= POLICY.max_attempts + 1)
    assert server.deaths == 0


async def test_killers_in_two_batches_hold_up_neither_nor_somebody_who_waits_for_an_answer(tmp_path):
    texts = rows(2)
    waited = ChatCompletionRequest([Message("user", "row interactive")], "m")

    async def interactive(dispatcher: Dispatcher) -> int:
        answered = 0
        while not batches.done():
            try:
                await dispatcher.ask_once(waited)
                answered += 1
            except EngineError as error:
                assert error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.INTERRUPTED)
            await asyncio.sleep(0.02)
        return answered

    with MortalServer(tmp_path) as server:
        async with dispatching(server) as dispatcher, asyncio.timeout(120):
            both = [ask(dispatcher, f"{text} of {flow}", flow) for flow in "ab" for text in texts]
            batches = asyncio.gather(*both)
            answered = await interactive(dispatcher)
            results = await batches
    assert answered > 10
    assert sum(isinstance(result, EngineError) for result in results) == 4


async def test_no_row_pays_for_a_server_that_somebody_else_kills(tmp_path):
    texts = rows(0)
    with MortalServer(tmp_path, restart_after=0.3) as server:
        async with dispatching(server) as dispatcher, asyncio.timeout(60):
            running = asyncio.gather(*(ask(dispatcher, text) for text in texts))
            for killed in range(1, 4):
                while sum(server.asked().values()) < 30 * killed:
                    await asyncio.sleep(0.01)
                server.kill()
            results = await running
    assert [result for result in results if not isinstance(result, Completion)] == []


async def test_in_a_pool_a_killer_does_not_visit_every_server_without_end(tmp_path):
    texts = rows(2)
    with MortalServer(tmp_path, "one") as one, MortalServer(tmp_path, "two") as two:
        async with dispatching(one, two, parallel=8) as dispatcher, asyncio.timeout(120):
            results = await asyncio.gather(*(ask(dispatcher, text) for text in texts))
        asked = one.asked() + two.asked()
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, EngineError) == ("KILL" in text)
        assert "KILL" not in text or asked[text] <= POLICY.max_attempts + 1
    assert one.deaths + two.deaths <= 2 * (POLICY.max_attempts + 1)


@pytest.mark.parametrize("idle", [0, 4])
async def test_a_row_that_comes_while_its_server_is_dying_is_not_taken_for_the_killer(tmp_path, idle):
    """On a connection that was kept alive, or on one that the dead process will never accept."""

    async def row(text: str) -> Completion | EngineError:
        try:
            return await engine.complete(ChatCompletionRequest([Message("user", text)], "m"))
        except EngineError as error:
            return error

    with MortalServer(tmp_path, dying=0.2) as server:
        engine = OpenAICompatibleEngine(OpenAICompatibleOptions(parallel=16), server.url)
        await engine.start()
        try:
            await asyncio.gather(*(row(f"row {number}") for number in range(idle + 1)))
            killer = await row("row KILL")
            assert isinstance(killer, EngineError) and killer.crashed == server.url
            async with asyncio.timeout(60):
                while isinstance(after := await row("row after"), EngineError):
                    assert after.kind is ErrorKind.UNAVAILABLE and after.crashed is None
        finally:
            await engine.stop()
        assert server.asked()["row after"] == 1


async def test_servers_of_a_pool_that_die_slowly_are_not_held_against_the_rows_that_come_meanwhile(tmp_path):
    texts = [text for text in rows(2) if "KILL" in text or int(text[4:7]) % 4 == 0]
    with MortalServer(tmp_path, "one", dying=0.1) as one, MortalServer(tmp_path, "two", dying=0.1) as two:
        async with dispatching(one, two, parallel=8) as dispatcher, asyncio.timeout(120):
            results = await asyncio.gather(*(ask(dispatcher, text) for text in texts))
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, EngineError) == ("KILL" in text)


async def test_what_vllm_was_answering_when_its_engine_died_is_a_crash_and_it_is_asked_nothing_until_it_is_well_again():
    """By its source: 500 to what was in flight, and 503 at /health for as long as its API server lives."""
    died = b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    died += b'"type":"InternalServerError","param":null,"code":500}}'
    with StandIn(lambda number: Play(500, died) if number == 0 else play(recording("chat"))) as server:
        engine = OpenAICompatibleEngine(OpenAICompatibleOptions(), server.url)
        await engine.start()
        try:
            with pytest.raises(EngineError) as caught:
                await engine.complete(chat())
            assert caught.value.kind is ErrorKind.INTERRUPTED and caught.value.crashed == server.url
            well, server.health = server.health, Play(503, b"")
            with pytest.raises(EngineError) as caught:
                await engine.complete(chat())
            assert caught.value.kind is ErrorKind.UNAVAILABLE and "/health with 503" in caught.value.message
            assert caught.value.crashed is None and server.asked == 1
            server.health = well
            assert isinstance(await engine.complete(chat()), Completion) and server.asked == 2
        finally:
            await engine.stop()


def test_a_run_with_rows_that_kill_the_server_ends_with_them_in_the_error_file(tmp_path):
    lines = [chat_line(f"row-{number}", text, model="m") for number, text in enumerate(rows(2))]
    (tmp_path / "in.jsonl").write_bytes(jsonl(lines))
    with MortalServer(tmp_path) as server:
        command = [sys.executable, "-m", "gristmill", "run", str(tmp_path / "in.jsonl")]
        command += ["-o", str(tmp_path / "out.jsonl"), "--engine", "openai_compatible", "--url", server.url]
        done = subprocess.run([*command, "-O", "parallel=16"], capture_output=True, text=True, timeout=180)
    output = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    errors = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert len(output) == ROWS - 2, done.stdout + done.stderr
    assert {line["custom_id"] for line in errors} == {"row-50", "row-150"}
    for line in errors:
        assert "broke while it was answering" in line["response"]["body"]["error"]["message"]


async def test_a_row_that_kills_a_real_llama_cpp_server_ends_as_itself(tmp_path, monkeypatch):
    """By a schema that nests so deep that the server's recursion overflows its stack (SIGSEGV, b11434)."""
    depth = 20_000
    schema = msgspec.Raw(b'{"type":"array","items":' * depth + b'{"type":"string"}' + b"}" * depth)
    deadly = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    deaths = 0

    async def keep(server: RealServer) -> None:
        nonlocal deaths
        while True:
            await asyncio.sleep(0.1)
            if server.died():
                deaths += 1
                await asyncio.to_thread(server.__enter__)

    with llama_cpp("smollm2-135m-instruct", tmp_path / "log") as server:
        monkeypatch.setenv("TEST_ENGINE_KEY", KEY)
        engine = OpenAICompatibleEngine(OpenAICompatibleOptions(api_key_env="TEST_ENGINE_KEY"), server.url)
        await engine.start()
        keeper = asyncio.create_task(keep(server))
        dispatcher = Dispatcher(engine, policy=POLICY)

        async def row(number: int) -> Completion | EngineError:
            request = ChatCompletionRequest(
                [Message("user", f"Count to {number}.")], engine.models[0], max_tokens=4,
                response_format=deadly if number == 5 else None,
            )  # fmt: skip
            try:
                return await dispatcher.ask(request, Stop())
            except EngineError as error:
                return error

        try:
            async with asyncio.timeout(400):
                results = await asyncio.gather(*map(row, range(12)))
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await engine.stop()
    assert [number for number, result in enumerate(results) if isinstance(result, EngineError)] == [5]
    assert results[5].kind is ErrorKind.INTERRUPTED and deaths in (3, 4)  # the last may not have been seen yet
