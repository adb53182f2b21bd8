"""A word that clients and an engine say wherever they can is looked for in all that a server prints."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from jobs import wait_until

from requests_jsonl import CHAT, chat_line, jsonl

WORD = "CANARY"
KEY = f"sk-{WORD}-key"
URL_PASSWORD = f"{WORD}-password"


class Upstream(BaseHTTPRequestHandler):
    """A server of models that repeats the word in answers, and in everything that can be wrong with one."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self.answer(200, {"object": "list", "data": [{"id": "simulated", "object": "model"}]})
        else:
            self.answer(404, {"error": {"message": WORD}})

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"])).decode()
        if "refuse" in asked:
            self.answer(400, {"error": {"message": f"I refuse {WORD}", "type": WORD, "code": WORD}})
        elif "fail" in asked:
            self.answer(500, {"error": {"message": f"I failed on {WORD}"}})
        elif "no JSON" in asked:
            self.say(200, f"{WORD} {{".encode())
        elif "not an answer" in asked:
            self.answer(200, {"choices": WORD, WORD: [WORD]})
        elif "break" in asked:
            self.close_connection = True
            self.connection.close()
        else:
            message = {"role": "assistant", "content": f"The answer is {WORD}."}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
            body = {"id": WORD, "object": "chat.completion", "created": 1, "model": "simulated", "choices": [choice]}
            self.answer(200, body | {"usage": usage})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.say(status, json.dumps(body).encode())

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-word", WORD)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


class Loud:
    """``gristmill serve`` at the level that says most; ``printed`` is all it has said, on both streams."""

    def __init__(self, data: Path, upstream: int, *options: str) -> None:
        self.printed = data.with_suffix(".log")
        command = [sys.executable, "-m", "gristmill", "serve", "--engine", "openai_compatible", "--port", "0"]
        command += ["--url", f"http://user:{URL_PASSWORD}@127.0.0.1:{upstream}/v1", "--model", "simulated"]
        command += ["--data", str(data), "--log-level", "debug", *options]
        with self.printed.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        self.base_url = ""
        while not self.base_url:
            assert self.process.poll() is None, self.printed.read_text()
            for line in self.printed.read_text().splitlines():
                if line.startswith("Gristmill is ready: "):
                    self.base_url = line.split()[-1]
            time.sleep(0.05)

    def stop(self) -> str:
        self.process.terminate()
        self.process.wait(timeout=60)
        return self.printed.read_text()


def run_everything(server: Loud) -> None:
    """Batches and requests that succeed and fail in each way, with the word everywhere."""
    client = openai.OpenAI(base_url=server.base_url, api_key=KEY, default_headers={"x-word": WORD}, max_retries=0)
    ways = ("answer", "refuse", "fail", "no JSON", "not an answer", "break")
    rows = [chat_line(f"{WORD}-{way}", f"{WORD}: {way}", user=WORD) for way in ways]
    files = [jsonl(rows), jsonl(rows) + f'{{"custom_id": "{WORD}", "{WORD}'.encode(), jsonl([rows[0], rows[0]])]
    for data in files:
        file = client.files.create(file=(f"{WORD}.jsonl", data), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={WORD: WORD}
        )
        wait_until(client, batch)
    for way in ways:
        with contextlib.suppress(openai.APIError):
            client.chat.completions.create(model="simulated", messages=[{"role": "user", "content": f"{WORD} {way}"}])
        with contextlib.suppress(openai.APIError):
            list(
                client.chat.completions.create(
                    model="simulated", messages=[{"role": "user", "content": f"{WORD} {way}"}], stream=True
                )
            )
    for method, path, body in (
        ("POST", "/batches", {"input_file_id": WORD, "metadata": {WORD: 5}}),
        ("POST", "/chat/completions", {"model": WORD, "messages": WORD}),
        ("POST", "/responses", {"model": "simulated", "input": f"{WORD} fail", "background": True}),
        ("POST", "/messages", {"model": "simulated", "max_tokens": 5, "messages": [{"role": WORD}]}),
        ("POST", "/files", {}),
    ):
        httpx.request(method, f"{server.base_url}{path}?{WORD}", json=body, headers={"x-api-key": KEY, "cookie": WORD})
    httpx.post(f"{server.base_url}/chat/completions", content=f"{{{WORD}", headers={"content-type": "application/json"})


def test_nothing_that_clients_or_the_engine_said_is_printed(tmp_path: Path, upstream: int) -> None:
    server = Loud(tmp_path / "data", upstream)
    try:
        run_everything(server)
    finally:
        printed = server.stop()
    assert "batch validated" in printed and "batch ended" in printed and "batch rejected" in printed
    assert "server is left alone" in printed
    assert [line for line in printed.splitlines() if WORD in line] == []


def test_what_the_engine_said_is_printed_where_that_is_asked_for_and_no_password_ever(
    tmp_path: Path, upstream: int
) -> None:
    server = Loud(tmp_path / "data", upstream, "--log-content", "--log-json")
    try:
        run_everything(server)
    finally:
        printed = server.stop()
    events = [json.loads(line) for line in printed.splitlines() if not line.startswith("Gristmill is ready: ")]
    assert any(event.get("content") for event in events)
    assert KEY not in printed and URL_PASSWORD not in printed
