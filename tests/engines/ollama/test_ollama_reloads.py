"""A model that is loaded again and again is noticed, and the option that differs is named."""

from __future__ import annotations

import pytest
from ollama_replay import MODEL, recording
from ollama_requests import asking_for, chat
from structlog.testing import capture_logs

from gristmill.engines.ollama.reloads import ReloadWatch, differences
from gristmill.engines.ollama.wire import RunningModel
from gristmill.telemetry.metrics import REGISTRY

RELOAD = recording("chat_reload")
FOUND = recording("ps_loaded").json["models"][0]
FOREVER = FOUND["expires_at"]


def warnings(logs: list[dict]) -> list[dict]:
    return [each for each in logs if each["log_level"] == "warning"]


@pytest.mark.asyncio
async def test_the_recorded_reload_is_seen_and_the_recorded_warm_rows_are_not(server, engine):
    server.play(recording("chat_first"), recording("chat_second"), recording("chat_logprobs"))
    for _ in range(3):
        await engine.complete(chat())
    assert engine.loads == 0
    counted = REGISTRY.get_sample_value("gristmill_model_reloads_total")
    server.play(RELOAD)
    completion = await engine.complete(asking_for("chat_reload"))
    assert completion.choices[0].text == RELOAD.json["message"]["content"]
    assert engine.loads == 1
    assert REGISTRY.get_sample_value("gristmill_model_reloads_total") == counted + 1


@pytest.mark.asyncio
async def test_a_storm_is_reported_with_the_option_that_differs(server, engine):
    with capture_logs() as logs:
        for _ in range(2):
            server.play(RELOAD)
            await engine.complete(chat())
        assert warnings(logs) == []
        # Another client has loaded the model between two rows.
        server.running = [FOUND | {"context_length": 2048}]
        server.play(RELOAD)
        await engine.complete(chat())
    (warning,) = warnings(logs)
    assert warning["loads"] == 3 and warning["frozen_options"] == "num_ctx=4096"
    assert "num_ctx differs: another client loaded smollm2-135m with 2048, this run uses 4096" in warning["cause"]


@pytest.mark.asyncio
async def test_a_storm_is_not_reported_once_a_row(server, engine):
    with capture_logs() as logs:
        for _ in range(12):
            server.play(RELOAD)
            await engine.complete(chat())
    assert [each["loads"] for each in warnings(logs)] == [3, 6, 12]
    assert "nothing that the server shows differs" in warnings(logs)[0]["cause"]


@pytest.mark.asyncio
async def test_a_row_does_not_suffer_when_the_list_of_models_cannot_be_had(server, engine):
    server.answers["/api/ps"] = recording("error_bad_json")
    server.play(RELOAD, RELOAD)
    await engine.complete(chat())
    await engine.complete(chat())
    assert engine.loads == 2


def test_rows_that_wait_for_the_same_load_count_it_once():
    watch = ReloadWatch(MODEL, 4096)
    assert watch.row(2.0, sent_at=10.0, now=12.0)
    assert not watch.row(2.0, sent_at=10.1, now=12.1)
    assert not watch.row(0.1, sent_at=13.0, now=14.0)
    assert watch.row(2.0, sent_at=15.0, now=17.0)
    assert watch.loads == 2


def test_the_list_of_loaded_models_says_what_differs():
    ours = RunningModel(f"{MODEL}:latest", FOREVER, 4096)
    assert differences([ours], MODEL, 4096) == []
    (expiring,) = differences([RunningModel(ours.name, "2026-11-23T06:00:00Z", 4096)], MODEL, 4096)
    assert expiring.startswith("keep_alive differs")
    (pushed,) = differences([RunningModel("gemma3:12b", FOREVER, 4096)], MODEL, 4096)
    assert "gemma3:12b" in pushed
    (gone,) = differences([], MODEL, 4096)
    assert "was unloaded" in gone
