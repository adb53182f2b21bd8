"""A real vLLM in a replica on a real Ray cluster: the cluster's Python has vLLM, ours, which drives it, none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import psutil
import pytest

from isolation import TEST_ENGINES
from server_process import ServerProcess

pytest.importorskip("ray", reason="the extra 'ray' is not installed: pip install 'gristmill[ray]'")

pytestmark = [
    pytest.mark.real_engine,
    pytest.mark.skipif(
        not (TEST_ENGINES / "vllm" / "complete-ray-2.60.0").exists(), reason="vllm is not built: `make test-engines`"
    ),
]

VLLM = TEST_ENGINES / "vllm"
MODEL = "smollm2"
SETTINGS = {
    "replica_gpus": "0", "dtype": "bfloat16", "max_model_len": "2048", "enforce_eager": "true", "max_num_seqs": "8",
    "gpu_memory_utilization": "0.3", "keep_replicas": "true",
}  # fmt: skip
SCHEMA = {
    "type": "object", "properties": {"fits": {"type": "boolean"}}, "required": ["fits"], "additionalProperties": False,
}  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [VLLM / "bin" / "ray", "start", "--head", "--port", str(port), "--num-cpus", "2", "--block"]
    command += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory", "100000000"]
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
        # The packages are those of vLLM's environment; only Gristmill comes from here.
        "PYTHONPATH": str(Path(__file__).parents[3] / "src"),
    }  # fmt: skip
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while "ray start --address" not in (folder / "ray.log").read_text():
            assert head.poll() is None, (folder / "ray.log").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        started = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([psutil.Process(head.pid), *started], timeout=20)
        for process in alive:
            process.kill()


def options(address: str) -> list[str]:
    given = ["--engine", "ray", "--ray-address", address, "--replicas", "1", "--replica-engine", "vllm"]
    given += ["--model", str(VLLM / MODEL)]
    return [*given, *(word for name, value in SETTINGS.items() for word in ("-O", f"{name}={value}"))]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("cluster")) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with ServerProcess(tmp_path_factory.mktemp("data"), *options(address)) as server:
        yield server.client(timeout=120, max_retries=0)


def ask(
    client: openai.OpenAI, text: str = "Say hello to the world.", **parameters: object
) -> openai.types.chat.ChatCompletion:
    given = {"max_tokens": 8, "temperature": 0.0, **parameters}
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], **given)  # type: ignore[no-any-return, call-overload]


def engine_processes() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [""])[0].startswith("VLLM::")]


def test_parameters_are_vllms_own(client: openai.OpenAI) -> None:
    likely = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert likely and likely.content and len(likely.content) == 8 and len(likely.content[0].top_logprobs) == 2
    assert likely.content[0].logprob == likely.content[0].top_logprobs[0].logprob < 0
    random = [ask(client, temperature=1.5, seed=seed).choices[0].message.content for seed in (3, 3, 4)]
    assert random[0] == random[1] != random[2]
    whole = ask(client).choices[0].message.content
    assert whole
    word = whole.split()[2]
    stopped = ask(client, stop=[word]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content == whole[: whole.index(word)]
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert set(json.loads(ask(client, response_format=wanted, max_tokens=30).choices[0].message.content or "")) == {
        "fits"
    }
    assert ask(client, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}).choices[0].message.content in (
        "yes",
        "no",
    )


def test_a_stream_comes_as_vllm_sends_it(client: openai.OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Say hello to the world."}], max_tokens=8,
            temperature=0.0, stream=True, stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 8 and len(chunks) > 4


def test_a_refusal_is_vllms_and_costs_nobody_else_anything(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature must be non-negative"):
        ask(client, temperature=-1.0)
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens"):
        ask(client, "word " * 3000)
    assert ask(client).choices[0].message.content


def test_a_stream_that_is_cut_off_frees_what_it_held(client: openai.OpenAI) -> None:
    # As many as vLLM computes at a time: were they not freed, the next would wait for minutes.
    for _ in range(8):
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Go on and on."}], max_tokens=1900, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        next(iter(stream))
        stream.close()
    assert ask(client).usage


def test_rows_of_a_batch_share_their_prefix_and_an_engine_that_dies_is_started_again(
    client: openai.OpenAI, address: str, tmp_path: Path
) -> None:
    rubric = "Score the candidate from 0 to 10 by what is said of them. " * 20
    lines = []
    for number in range(120):
        messages = [{"role": "system", "content": rubric}, {"role": "user", "content": f"Candidate {number}"}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 4, "temperature": 0}
        lines.append({"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    uploaded = client.files.create(file=(tmp_path / "rows.jsonl").open("rb"), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    killed = False
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
        if not killed and batch.request_counts and batch.request_counts.completed >= 10:
            next(each for each in engine_processes() if "EngineCore" in each.cmdline()[0]).kill()
            killed = True
    assert killed and batch.request_counts and batch.request_counts.completed == 120, batch
    answers = [json.loads(line) for line in client.files.content(batch.output_file_id or "").text.splitlines()]
    assert len({answer["custom_id"] for answer in answers}) == len(answers) == 120
    usages = [answer["response"]["body"]["usage"] for answer in answers]
    assert sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages) > 0.4 * sum(
        usage["prompt_tokens"] for usage in usages
    )


def test_what_vllm_started_ends_with_its_replica(client: openai.OpenAI) -> None:
    assert ask(client).choices
    engines = engine_processes()
    # There may be replicas of other clusters on this machine.
    above = [each for each in engines[0].parents() if (each.cmdline() or [""])[0].startswith("ray::Replica")]
    assert len(engines) >= 2
    above[0].kill()
    assert psutil.wait_procs(engines, timeout=30)[1] == []


def test_what_vllm_says_of_a_wrong_option_is_the_commands_last_word(address: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    command = [sys.executable, "-m", "gristmill", "run", str(tmp_path / "rows.jsonl")]
    command += ["-o", str(tmp_path / "answers.jsonl"), *options(address)]
    said = subprocess.run([*command, "-O", "max_modl_len=3"], capture_output=True, text=True, timeout=300)
    assert said.returncode != 0
    assert said.stderr.splitlines()[-1].endswith("unrecognized arguments: --max-modl-len=3.")
