"""A whole server on llama.cpp, asked as people ask it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("xllamacpp", reason="the extra 'llama-cpp' is not installed")

from tiny_gguf import tiny_model

from requests_jsonl import jsonl
from server_process import ServerProcess

OPTIONS = ("-O", "kv_cache_gb=0.02", "-O", "threads=1")


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its model has no chat template."""
    folder = tmp_path_factory.mktemp("llama")
    model = tiny_model(folder / "tiny.gguf")
    with ServerProcess(folder / "data", "--engine", "llama_cpp", "--model", str(model), *OPTIONS) as running:
        yield running


def test_the_doctor_says_what_computes_and_finds_a_base_model_healthy(tiny_server: ServerProcess) -> None:
    command = [sys.executable, "-m", "gristmill", "doctor", "--json", tiny_server.base_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert findings["computes on"]["detail"].startswith("The CPU")
    assert findings["engine"]["verdict"] == "ok"
    assert findings["prefix reuse"]["verdict"] == "ok"
    assert done.returncode == 0


def test_labels_are_scored_over_http(tiny_server: ServerProcess) -> None:
    body = {"model": "tiny", "query": "the grade is ", "labels": ["1", "10", "7"]}
    answer = httpx.post(f"{tiny_server.base_url}/score", json=body, timeout=30).raise_for_status().json()
    assert len(answer["scores"][0]) == 3 and all(0 < score < 1 for score in answer["scores"][0])


def test_a_batch_of_rows_that_share_a_rubric_reports_what_was_reused(tmp_path: Path) -> None:
    def row(number: int) -> dict[str, Any]:
        body = {"model": "tiny", "prompt": f"{'A rubric for all rows. ' * 10}Row {number}:", "max_tokens": 4}
        return {"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": body}

    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_bytes(jsonl([row(number) for number in range(30)]))
    command = [sys.executable, "-m", "gristmill", "run", str(source), "-o", str(target), "--engine", "llama_cpp"]
    command += ["--model", str(tiny_model(tmp_path / "tiny.gguf")), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    usages = [json.loads(line)["response"]["body"]["usage"] for line in target.read_text().splitlines()]
    cached = sorted(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    # All but the first row find the rubric computed.
    assert len(usages) == 30 and cached[0] == 0 and cached[1] >= len("A rubric for all rows. ") * 10
