# /// script
# dependencies = ["litellm[proxy]==1.108.7"]
# ///
"""LiteLLM, proxy

In its `config.yaml`: a model with `model: openai/MODEL`, `api_base: http://127.0.0.1:4080/v1`, `api_key: unused`; for
files and batches the same under `files_settings`. Asked here by OpenAI's Python client. (The newest that installs:
later ones require releases of `litellm-enterprise` and `litellm-proxy` that PyPI did not have.)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai
from calls import SERVERS, Server, call, check, run_calls

#: The proxy starts with none only where told to.
KEY = "sk-of-the-proxy"
MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def start() -> tuple[subprocess.Popen[bytes], str]:
    """The proxy, in front of both servers. Batches are created where the first model is."""
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{each.model}", "api_base": each.url, "api_key": "x"}}
        for name, each in sorted(SERVERS.items())
    ]
    files = [{"custom_llm_provider": "openai", "api_base": SERVERS["embedded"].url, "api_key": "unused"}]
    # YAML is a superset of JSON.
    Path("config.yaml").write_text(json.dumps({"model_list": models, "files_settings": files}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("litellm")
    command = [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "LITELLM_MASTER_KEY": KEY})
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{url}/health/liveliness", timeout=5)
            return process, url
        except (urllib.error.URLError, OSError):
            check(process.poll() is None, "the proxy did not start")
            time.sleep(0.5)
    raise TimeoutError("the proxy does not answer")


def client() -> openai.OpenAI:
    return openai.OpenAI(base_url=PROXY, api_key=KEY, max_retries=0)


@call("chat.completions.create", "embedded")
def chat(server: Server) -> None:
    answer = client().chat.completions.create(model="embedded", messages=MESSAGES, temperature=0)
    check("Paris" in (answer.choices[0].message.content or ""), answer)


@call("chat.completions.create, streamed", "embedded")
def streamed(server: Server) -> None:
    chunks = client().chat.completions.create(model="embedded", messages=MESSAGES, temperature=0, stream=True)
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    check("Paris" in text, text)


@call("chat.completions.create, tools, required", "embedded")
def tools(server: Server) -> None:
    answer = client().chat.completions.create(
        model="embedded", messages=ASKED, tools=[WEATHER], tool_choice="required", temperature=0, max_tokens=200
    )
    called = (answer.choices[0].message.tool_calls or [])[0]
    check("city" in json.loads(called.function.arguments), answer)


@call("embeddings.create")
def embeddings(server: Server) -> None:
    answer = client().embeddings.create(model="simulated", input=["one", "two"])
    check(len(answer.data) == 2 and len(answer.data[0].embedding) > 1, answer)


@call("responses.create", "embedded")
def responses(server: Server) -> None:
    answer = client().responses.create(model="embedded", input="What is the capital of France?", temperature=0)
    check("Paris" in answer.output_text, answer)


@call("files and batches", "embedded")
def batch(server: Server) -> None:
    api = client()
    body = {"model": server.model, "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    provider = {"custom_llm_provider": "openai"}
    file = api.files.create(file=("rows.jsonl", json.dumps(row).encode()), purpose="batch", extra_body=provider)
    made = api.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_body=provider
    )
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        made = api.batches.retrieve(made.id, extra_query=provider)
    check(made.status == "completed" and made.output_file_id, made)
    assert made.output_file_id is not None
    text = api.files.content(made.output_file_id, extra_query=provider).text
    check("Paris" in text, text)


if __name__ == "__main__":
    process, PROXY = start()
    try:
        run_calls()
    finally:
        process.terminate()
        process.wait()
