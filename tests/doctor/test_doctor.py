from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.doctor.judgement import (
    CompletionProbe,
    judge_address,
    judge_computing,
    judge_connection,
    judge_context,
    judge_disk,
    judge_reuse,
)
from requests_jsonl import chat_line, jsonl
from server_process import ServerProcess


def run_doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    command = [sys.executable, "-m", "gristmill", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_a_healthy_server_has_no_problem_and_reuses_prefixes(server: ServerProcess) -> None:
    code, findings = run_doctor(server.base_url)
    assert code == 0
    assert {check: finding["verdict"] for check, finding in findings.items()} == {
        "address": "note", "connection": "ok", "models": "ok", "endpoints": "ok", "engine": "ok", "prefix reuse": "ok",
        "context": "ok", "disk": "ok",
    }  # fmt: skip


def test_what_computes_is_told_and_what_would_be_faster() -> None:
    good = judge_computing("the CPU (AVX2); llama.cpp 0.6.0", None)
    assert (good.verdict, good.detail, good.advice) == ("ok", "The CPU (AVX2); llama.cpp 0.6.0.", "")
    better = judge_computing("the CPU", "There seems to be an NVIDIA GPU: ...")
    assert (better.verdict, better.advice) == ("note", "There seems to be an NVIDIA GPU: ...")


def test_a_server_without_prefix_cache_is_found_out(data: Path) -> None:
    with ServerProcess(data, "-O", "cached_prompts=0").start() as server:
        code, findings = run_doctor(server.base_url)
    assert code == 1
    assert findings["prefix reuse"]["verdict"] == "problem"


def test_a_row_that_is_longer_than_the_context_is_found_out(data: Path, tmp_path: Path) -> None:
    source = tmp_path / "input.jsonl"
    source.write_bytes(jsonl([chat_line("long", "word " * 5000)]))
    with ServerProcess(data, "-O", "context_length=4096").start() as server:
        code, findings = run_doctor(server.base_url, "--input", str(source))
    assert code == 1
    assert findings["context"]["verdict"] == "problem"


def test_a_server_with_a_short_context_answers_a_probe_that_fits(data: Path) -> None:
    with ServerProcess(data, "-O", "context_length=512").start() as server:
        code, findings = run_doctor(server.base_url)
    assert code == 0, findings


def test_nobody_listening_is_a_problem_with_advice() -> None:
    code, findings = run_doctor("http://127.0.0.1:1/v1")
    assert code == 1
    assert "gristmill serve" in findings["connection"]["advice"]


def test_a_url_that_is_not_of_the_api_is_a_problem(server: ServerProcess) -> None:
    code, findings = run_doctor(server.base_url.removesuffix("/v1") + "/elsewhere")
    assert code == 1
    assert "/v1" in findings["models"]["advice"]


@pytest.mark.parametrize("ending", ["", "/", "/v1/"])
def test_an_address_does_with_and_without_v1(server: ServerProcess, ending: str) -> None:
    code, findings = run_doctor(server.base_url.removesuffix("/v1") + ending)
    assert code == 0, findings


def test_a_network_address_is_fine_and_loopback_is_noted() -> None:
    assert judge_address("box", ["192.0.2.7"]).verdict == "ok"
    assert judge_address("localhost", ["127.0.0.1", "::1"]).verdict == "note"
    assert judge_address("nowhere", []).verdict == "problem"


def test_a_silent_machine_points_to_the_firewall() -> None:
    assert "ufw allow 4080" in judge_connection("192.0.2.7", 4080, "timed out", []).advice


def test_reuse_that_is_not_reported_is_no_verdict() -> None:
    assert judge_reuse(CompletionProbe(1.0, 500, None), CompletionProbe(0.2, 500, None)).verdict == "note"
    assert judge_reuse(CompletionProbe(1.0, 500, 0), CompletionProbe(0.9, 500, 0)).verdict == "problem"


def test_little_disk_for_the_input_is_a_problem() -> None:
    assert judge_disk(10**10, 10**8).verdict == "ok"
    assert judge_disk(10**10, 8 * 10**9).verdict == "problem"


def test_an_unknown_context_is_noted() -> None:
    assert judge_context(None, 100).verdict == "note"
