"""The real servers that ``scripts/build-test-engines.sh`` has built, as processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gristmill.models.locate import locate
from gristmill.user_error import UserError
from isolation import TEST_ENGINES

KEY = "a-key-for-tests"
#: Each llama.cpp slot's context, and vLLM's.
CONTEXT = 2048


class RealServer:
    """Serves ``model`` at ``url``; leave the ``with`` block to stop it."""

    def __init__(self, kind: str, command: list[str], port: int, model: str, log: Path, **environment: str) -> None:
        self.kind = kind
        self.model = model
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._command = command
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> RealServer:
        with self._log.open("w") as log:
            # A group of its own: vLLM starts workers, which must go with it.
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def died(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + 180
        while time.monotonic() < end:
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        raise AssertionError(f"{self._command[0]} did not start: {self._log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _built(name: str) -> Path:
    if not any((TEST_ENGINES / name).glob("complete-*")):
        pytest.skip(f"{name} is not built: `make test-engines` builds it")
    return TEST_ENGINES / name


def llama_cpp(catalog_model: str, log: Path, *options: str) -> RealServer:
    binary = _built("llama-cpp") / "server" / "llama-server"
    try:
        weights = locate(catalog_model).path
    except UserError as error:
        pytest.skip(str(error))
    port = _free_port()
    command = [str(binary), "-m", str(weights), "--alias", catalog_model, "--port", str(port)]
    # One thread: those of two servers that share two cores would wait for each other, at full speed.
    command += ["--host", "127.0.0.1", "-c", str(2 * CONTEXT), "-np", "2", "-t", "1", "-tb", "1", "--api-key", KEY]
    return RealServer("llamacpp", [*command, *options], port, catalog_model, log)


def vllm(log: Path) -> RealServer:
    folder = _built("vllm")
    port, model = _free_port(), "smollm2-135m-instruct"
    command = [str(folder / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder / "smollm2"), "--served-model-name", model, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--enforce-eager"]
    command += ["--enable-prompt-tokens-details", "--max-num-seqs", "8", "--api-key", KEY]
    # For CPUs this is the share of the whole memory that has to be free.
    command += ["--gpu-memory-utilization", "0.3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    return RealServer(
        "vllm", command, port, model, log,
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1",
    )  # fmt: skip
