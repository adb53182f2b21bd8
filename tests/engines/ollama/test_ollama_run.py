"""A whole batch through ``gristmill run``, and its dispatcher, against the replayed server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from ollama_replay import MODEL, ReplayServer, recording
from ollama_requests import chat

from gristmill.dispatch.dispatcher import Dispatcher
from gristmill.dispatch.stop import Stop
from gristmill.engines.errors import EngineError

ROWS = 20


def line(index: int) -> str:
    messages = recording("chat_first").sent["messages"]
    # Each its own seed: rows that ask the same would run once.
    body = {"model": MODEL, "messages": messages, "max_completion_tokens": 24, "temperature": 0, "seed": index}
    row = {"custom_id": f"row-{index}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(row) + "\n"


def test_a_run_of_twenty_rows_over_ollama(server, tmp_path):
    wanted = tmp_path / "in.jsonl"
    wanted.write_text("".join(map(line, range(ROWS))))
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "gristmill", "run", str(wanted), "-o", str(output), "--engine", "ollama"]
    command += ["--url", server.url, "--model", MODEL, "-O", "parallel=2"]
    server.play(recording("chat_first"), recording("chat_reload"), recording("error_too_long"))
    server.usual = recording("chat_second")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr  # one row was too long
    answers = [json.loads(each) for each in output.read_text().splitlines()]
    errors = [json.loads(each) for each in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert len(answers) == ROWS - 1 and len(errors) == 1
    assert errors[0]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    usage = answers[-1]["response"]["body"]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] is None
    assert {each["response"]["body"]["usage"]["prompt_tokens"] for each in answers} == {215, 216, 217}
    assert len(server.rows) == ROWS  # a caller's mistake is not tried again
    assert {each.body["options"].pop("seed") for each in server.rows} == set(range(ROWS))
    sent = recording("chat_first").sent
    del sent["options"]["seed"]
    assert all(each.body == sent for each in server.rows)
    assert [load["keep_alive"] for load in server.loads] == [-1, 300]


def test_a_run_without_ollama_says_what_to_do(server, tmp_path):
    wanted = tmp_path / "in.jsonl"
    wanted.write_text(line(0))
    server.stop()
    command = [sys.executable, "-m", "gristmill", "run", str(wanted), "-o", str(tmp_path / "out.jsonl")]
    command += ["--engine", "ollama", "--url", server.url, "--model", MODEL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "ollama serve" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["error_bad_format", "error_bad_option_type", "error_too_long"])
async def test_a_callers_mistake_is_sent_once_even_where_ollama_says_500(server, engine, name):
    server.usual = recording(name)
    with pytest.raises(EngineError):
        await Dispatcher(engine).ask(chat(), Stop())
    assert len(server.rows) == 1


@pytest.mark.asyncio
async def test_a_busy_server_and_a_crashed_runner_cost_no_row(server, engine):
    error = recording("error_bad_format")
    server.play(error.with_status(503, "server busy, please try again.  maximum pending requests exceeded"))
    server.play(error.with_status(500, "llama runner process has unexpectedly stopped"))
    completion = await Dispatcher(engine).ask(chat(), Stop())
    assert completion.choices[0].finish_reason == "length"
    assert len(server.rows) == 3


@pytest.mark.asyncio
async def test_a_row_outlives_an_ollama_that_is_restarted(server, engine):
    server.stop()
    dispatcher = Dispatcher(engine)
    row = asyncio.create_task(dispatcher.ask(chat(), Stop()))
    while dispatcher.outage.reason is None:
        await asyncio.sleep(0.01)
    with ReplayServer(int(server.url.rpartition(":")[2])) as restarted:
        restarted.play(recording("chat_first").but(load_duration=recording("chat_reload").json["load_duration"]))
        assert (await row).choices[0].finish_reason == "length"
        # The first row loads the model, with the same options as before.
        assert restarted.rows[0].body["options"]["num_ctx"] == 4096
        assert restarted.rows[0].body["keep_alive"] == -1
    assert engine.loads == 1
