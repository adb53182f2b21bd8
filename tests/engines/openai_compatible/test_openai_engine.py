"""The engine over a stand-in: what a server says on the wire, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from openai_stand_in import Play, StandIn, chat, play, recording

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.retry import RetryPolicy
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.openai_compatible.engine import OpenAICompatibleEngine, OpenAICompatibleOptions
from gristmill.engines.openai_compatible.options import base_urls
from gristmill.user_error import UserError

ROW = chat("Rate candidate 7.")


@asynccontextmanager
async def started(*servers: StandIn, **options: object) -> AsyncIterator[OpenAICompatibleEngine]:
    urls = ",".join(server.url for server in servers)
    engine = OpenAICompatibleEngine(OpenAICompatibleOptions(**options), urls)  # type: ignore[arg-type]
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def refusal(engine: OpenAICompatibleEngine) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.complete(ROW)
    return caught.value


async def test_the_key_is_sent_with_every_request_and_shown_nowhere(monkeypatch, capfd):
    monkeypatch.setenv("THE_KEY", "s3cret")
    with StandIn() as server:
        async with started(server, api_key_env="THE_KEY") as engine:
            await engine.complete(ROW)
            assert "s3cret" not in repr(vars(engine))
            server.rows = lambda _: play(recording("badkey"))
            assert "s3cret" not in (await refusal(engine)).message
        assert {each["Authorization"] for each in server.headers} == {"Bearer s3cret"}
    assert "s3cret" not in "".join(capfd.readouterr())


async def test_a_start_with_a_wrong_or_missing_key_says_what_to_do(monkeypatch):
    with StandIn() as server:
        server.models = play(recording("badkey"))
        with pytest.raises(UserError, match="api_key_env"):
            async with started(server):
                pass
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(UserError, match="NO_KEY is empty"):
        async with started(server, api_key_env="NO_KEY"):
            pass


async def test_a_start_waits_for_a_server_that_loads_its_model():
    with StandIn() as server:
        server.models = play(recording("loading"))
        starting = asyncio.create_task(started(server).__aenter__())
        await asyncio.sleep(0.3)
        assert not starting.done()
        server.models = play(recording("models"))
        engine = await starting
        assert engine.models == ("smollm2",)
        await engine.stop()


async def test_a_start_does_not_wait_longer_than_it_may():
    with StandIn() as server:
        server.models = play(recording("loading"))
        with pytest.raises(UserError, match="Loading model"):
            async with started(server, start_timeout=0.2):
                pass


@pytest.mark.parametrize("answer", [Play(200, b"<html>hello"), Play(404, b""), Play(200, b'{"data": [{}]}')])
async def test_what_does_not_speak_the_openai_api_is_told_so(answer):
    with StandIn() as server:
        server.models = answer
        with pytest.raises(UserError, match="does not speak the OpenAI API"):
            async with started(server):
                pass


async def test_a_model_the_server_does_not_have_is_refused_with_what_it_has():
    with StandIn() as server:
        engine = OpenAICompatibleEngine(OpenAICompatibleOptions(), server.url, "gpt-4o")
        with pytest.raises(UserError, match="no model 'gpt-4o'. It has: smollm2"):
            await engine.start()


async def test_nobody_at_the_address_is_told_before_the_first_row():
    with StandIn() as server:
        url = server.url
    engine = OpenAICompatibleEngine(OpenAICompatibleOptions(), url)
    with pytest.raises(UserError, match="No server answers at"):
        await engine.start()


async def test_a_parameter_the_server_does_not_honour_is_refused_by_name():
    def rows(_: int) -> Play:
        return play(recording("chat"))

    with StandIn(rows) as server:
        async with started(server) as engine:
            with pytest.raises(EngineError) as caught:
                await engine.complete(chat("x", prediction={"type": "content"}))
            assert caught.value.param == "prediction" and server.asked == 0


@pytest.mark.parametrize("name", ["long", "badschema", "template", "grammar"])
async def test_a_callers_mistake_is_sent_once_even_where_the_server_says_500(name):
    with StandIn(lambda _: play(recording(name))) as server:
        async with started(server) as engine:
            with pytest.raises(EngineError):
                await Dispatcher(engine).ask(ROW, Stop())
        assert server.asked == 1


async def test_a_busy_server_costs_no_attempt_and_gets_its_pause():
    def rows(number: int) -> Play:
        return Play(503, b"busy", {"Retry-After": "0"}) if number < 6 else play(recording("chat"))

    with StandIn(rows) as server:
        async with started(server) as engine:
            server.rows = lambda _: Play(429, b"busy", {"Retry-After": "2"})
            error = await refusal(engine)
            assert (error.kind, error.retry_after) == (ErrorKind.OVERLOADED, 2.0)


async def test_a_busy_endpoint_is_left_for_a_free_one_at_once():
    with StandIn(lambda _: Play(503, b"busy", {"Retry-After": "30"})) as busy, StandIn() as free:
        async with started(busy, free) as engine:
            for _ in range(8):
                assert (await engine.complete(ROW)).prompt_tokens == 34
        assert busy.asked == 1 and free.asked == 8


async def test_a_cut_answer_is_tried_again_and_answered():
    def rows(number: int) -> Play:
        body = recording("chat").body
        return Play(200, body, cut=len(body) // 2) if number < 2 else Play(200, body)

    with StandIn(rows) as server:
        async with started(server) as engine:
            assert (await Dispatcher(engine).ask(ROW, Stop())).completion_tokens == 4
        assert server.asked == 3


async def test_a_stream_that_is_cut_is_not_begun_again():
    def rows(_: int) -> Play:
        return Play(200, recording("stream").body, cut=700)

    said: list[str] = []
    with StandIn(rows) as server:
        async with started(server) as engine:
            with pytest.raises(EngineError) as caught:
                await engine.complete(ROW, lambda delta: said.append(delta.text))
        assert caught.value.kind is ErrorKind.INTERRUPTED
        assert said and server.asked == 1


async def test_failed_answers_in_a_row_send_the_rows_elsewhere():
    with StandIn(lambda _: Play(500, b"CUDA error")) as broken, StandIn() as good:
        async with started(broken, good) as engine:
            dispatcher = Dispatcher(engine)
            rows = [dispatcher.ask(ROW, Stop()) for _ in range(40)]
            answers = await asyncio.gather(*rows)
        assert len(answers) == 40 and good.asked == 40
        assert 1 <= broken.asked <= 12


async def test_a_server_that_hangs_is_not_asked_for_ever():
    with StandIn() as hanging, StandIn() as good:
        async with started(hanging, good) as engine:
            hanging.seconds = 60.0
            dispatcher = Dispatcher(engine, timeout=0.2, policy=RetryPolicy(first_delay=0.01, max_delay=0.01))
            rows = [dispatcher.ask(ROW, Stop()) for _ in range(60)]
            assert len(await asyncio.gather(*rows)) == 60
        assert good.asked == 60 and hanging.asked <= 8


async def test_slots_are_summed_where_every_server_tells_them():
    with StandIn() as one, StandIn() as two:
        async with started(one, two) as engine:
            assert (engine.capabilities.slots, engine.capabilities.slots_known) == (4, True)
            assert engine.capabilities.context_length == 2048
        one.models = play(recording("models", "vLLM"))
        async with started(one, two) as engine:
            assert (engine.capabilities.slots, engine.capabilities.slots_known) == (512, False)
        async with started(one, two, parallel=16) as engine:
            assert (engine.capabilities.slots, engine.capabilities.slots_known) == (32, True)


def test_addresses_are_taken_as_people_write_them():
    assert base_urls("gpu:8000/v1, https://x/llm/v1/") == ("http://gpu:8000", "https://x/llm")
    for wrong in (None, "", " , ", "ftp://x", "http://", "http://x:port", "http://x/?a=1"):
        with pytest.raises(UserError):
            base_urls(wrong)
    with pytest.raises(UserError, match="twice"):
        base_urls("http://a:1,a:1/v1")
    with pytest.raises(UserError) as caught:
        base_urls("ftp://me:pass@x")
    assert "pass" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        base_urls("me:pass@x/?a=1")
    assert "pass" not in str(caught.value)
