"""What a real server shows at ``/metrics``, and that people are told of each name."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import openai
from jobs import run, submit, wait_until
from prometheus_client.parser import text_string_to_metric_families

from requests_jsonl import chat_file, chat_line, jsonl
from server_process import ServerProcess

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def scrape(server: ServerProcess) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels, which are in the order of their names."""
    answer = httpx.get(f"{server.base_url.removesuffix('/v1')}/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def names(text: str) -> set[str]:
    return {family.name for family in text_string_to_metric_families(text)}


def test_a_batch_has_series_until_it_ends_and_is_counted_then(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ServerProcess(data, "--engine-option", "latency=0.2", "--engine-option", "slots=2") as server:
        client = server.client()
        batch = wait_until(client, submit(client, chat_file(60)), "in_progress", done=2)
        during = scrape(server)
        assert 0 < during["gristmill_batch_rows_remaining", batch.id] < 60
        assert during["gristmill_batch_eta_seconds", batch.id] > 0
        assert during["gristmill_batch_expires_timestamp_seconds", batch.id] == batch.expires_at
        assert batch.created_at <= during["gristmill_batch_last_result_timestamp_seconds", batch.id]
        assert during["gristmill_batches", "in_progress"] == during["gristmill_active_batches",] == 1
        assert during["gristmill_window_requests",] == 2 >= during["gristmill_requests_in_flight",] > 0
        client.batches.cancel(batch.id)
        wait_until(client, batch)
        after = scrape(server)
        assert not [key for key in after if batch.id in key]
        assert after["gristmill_batches", "in_progress"] == 0


def test_rows_tokens_requests_and_commits_are_counted(server: ServerProcess, client: openai.OpenAI) -> None:
    before = scrape(server)
    rubric = "The rubric, which all rows share, to the letter. " * 40
    batch = run(client, jsonl([chat_line(f"row-{index}", f"{rubric} Candidate {index}.") for index in range(50)]))
    assert batch.usage is not None and batch.request_counts.completed == 50
    after = scrape(server)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0.0)

    usage = batch.usage
    cached = usage.input_tokens_details.cached_tokens
    assert more("gristmill_rows_total", "succeeded") == 50 and more("gristmill_rows_total", "failed") == 0
    assert more("gristmill_tokens_total", "prompt") == usage.input_tokens
    assert more("gristmill_tokens_total", "cached") == cached > 0
    assert more("gristmill_tokens_total", "computed") == usage.input_tokens - cached
    assert more("gristmill_tokens_total", "completion") == usage.output_tokens
    assert more("gristmill_engine_request_duration_seconds_count", "answered") == 50
    assert more("gristmill_result_commit_duration_seconds_count") >= 1
    assert more("gristmill_http_requests_total", "GET", "/v1/batches/{batch_id}", "200") >= 1


def test_no_id_and_no_invented_method_becomes_a_label(server: ServerProcess, client: openai.OpenAI) -> None:
    for path in ("/v1/files/file-CANARY", "/v1/CANARY", "/v1/batches/batch_CANARY/cancel"):
        httpx.request("PROPFIND", f"{server.base_url.removesuffix('/v1')}{path}")
        httpx.get(f"{server.base_url.removesuffix('/v1')}{path}", headers={"host": "CANARY"})
        httpx.get(f"{server.base_url.removesuffix('/v1')}{path}")
    found = scrape(server)
    assert "CANARY" not in repr(found) and "PROPFIND" not in repr(found)
    assert found["gristmill_http_requests_total", "GET", "/v1/files/{file_id}", "404"] == 1
    assert found["gristmill_http_requests_total", "other", "other", "404"] == 1


def test_every_metric_is_documented_and_every_documented_metric_is_there(server: ServerProcess) -> None:
    shown = names(httpx.get(f"{server.base_url.removesuffix('/v1')}/metrics").text)
    told = set(re.findall(r"^\| .*", DOCUMENT.read_text(), re.MULTILINE))
    told = {name for line in told for name in re.findall(r"`((?:gristmill|process)_\w+)", line.split(" | ")[0])}
    # A counter's family is named without the ending of its samples.
    assert {name.removesuffix("_total") for name in told} == {name.removesuffix("_total") for name in shown}
