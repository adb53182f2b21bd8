"""The doctor at an Ollama server: real answers, replayed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gristmill.doctor.examination import examine
from gristmill.doctor.ollama_judgement import (
    PrefillProbe,
    judge_keep_alive,
    judge_place,
    judge_prefill,
    judge_version,
)
from gristmill.engines.ollama.wire import RunningModel

sys.path.append(str(Path(__file__).parents[1] / "engines" / "ollama"))
from ollama_replay import ReplayServer, recording


@pytest.fixture
def server():
    with ReplayServer() as running:
        running.running = [recording("ps_loaded").json["models"][0]]
        yield running
    assert running.wrong == []


def by_check(server: ReplayServer, url: str = "") -> dict:
    return {finding.check: finding for finding in examine(url or server.url)}


def test_it_knows_ollama_with_and_without_v1(server):
    for url in (server.url, f"{server.url}/v1"):
        server.play(recording("chat_first"), recording("chat_second"))
        findings = by_check(server, url)
        assert "0.33.0-rc2" in findings["server"].detail
        assert "OLLAMA_HOST=0.0.0.0" in findings["address"].advice
        assert findings["models"].verdict == "ok"


def test_the_probes_change_nothing_that_is_loaded(server):
    by_check(server)
    first, second = (each.body for each in server.rows)
    loaded = recording("ps_loaded").json["models"][0]
    for body in (first, second):
        assert body["model"] == loaded["name"]
        assert body["options"]["num_ctx"] == loaded["context_length"]
        assert "keep_alive" not in body
        assert body["truncate"] is False
    assert first["messages"][0]["content"][:1000] == second["messages"][0]["content"][:1000]
    assert server.loads == []


def test_nothing_is_probed_where_nothing_is_loaded(server):
    server.running = []
    findings = by_check(server)
    assert findings["loaded"].verdict == "note"
    assert server.rows == []


def test_reuse_is_judged_by_the_prefill_time_where_it_is_not_counted(server):
    slow, fast = recording("chat_first"), recording("chat_second")
    server.play(slow.but(prompt_eval_duration=7_162_000_000), fast.but(prompt_eval_duration=680_000_000))
    assert by_check(server)["prefix reuse"].verdict == "ok"
    server.play(slow.but(prompt_eval_duration=7_162_000_000), fast.but(prompt_eval_duration=7_000_000_000))
    assert by_check(server)["prefix reuse"].verdict == "problem"


def test_a_reload_between_two_probes_is_a_problem_of_its_own(server):
    server.play(recording("chat_first"), recording("chat_reload"))
    finding = by_check(server)["prefix reuse"]
    assert finding.verdict == "problem"
    assert "loaded again" in finding.detail


def test_reported_cached_tokens_decide_where_there_are_some():
    first = PrefillProbe(0.001, 1.0, 500, 0)
    assert judge_prefill("m", first, PrefillProbe(0.001, 0.9, 500, 480)).verdict == "ok"
    assert judge_prefill("m", first, PrefillProbe(0.001, 0.1, 500, 0)).verdict == "problem"


@pytest.mark.parametrize(
    ("size", "in_vram", "verdict"), [(10**10, 10**10, "ok"), (10**10, 6 * 10**9, "problem"), (10**10, 0, "note")]
)
def test_a_model_half_on_the_cpu_is_found_out(size, in_vram, verdict):
    assert judge_place(RunningModel("gemma3:12b", size=size, size_vram=in_vram)).verdict == verdict


def test_a_model_that_will_be_unloaded_says_when():
    now = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
    finding = judge_keep_alive(RunningModel("m", expires_at="2026-11-23T06:04:18.23489605Z"), now)
    assert "4 more minutes" in finding.detail
    forever = recording("ps_loaded").json["models"][0]["expires_at"]
    assert judge_keep_alive(RunningModel("m", expires_at=forever), now).verdict == "ok"


def test_an_old_ollama_is_a_problem():
    assert judge_version("0.5.1").verdict == "problem"
    assert judge_version("0.33.0").verdict == "note"
    assert judge_version("0.34.1").verdict == "ok"


def test_it_says_what_can_be_asked_of_a_model_and_sends_no_chat_to_one_that_embeds(server):
    server.play(recording("chat_first"), recording("chat_second"))
    assert "/v1/chat/completions" in by_check(server)["endpoints"].detail
    server.seen.clear()
    server.answers["/api/show"] = recording("show").but(capabilities=["embedding"])
    findings = by_check(server)
    assert findings["endpoints"].detail == f"{server.running[0]['name']} answers /v1/embeddings."
    assert "prefix reuse" not in findings and server.rows == []
