# /// script
# dependencies = ["litellm==1.110.2"]
# ///
"""LiteLLM, SDK

`litellm.completion(model="openai/MODEL", api_base="http://127.0.0.1:4080/v1", api_key="unused")`, and so in every call.
"""

from __future__ import annotations

import json
import time
from typing import Any

import litellm
from calls import Server, call, check, run_calls
from pydantic import BaseModel

MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
FORCED: dict[str, Any] = {"tool_choice": "required", "temperature": 0, "max_tokens": 200}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Verdict(BaseModel):
    score: int
    good: bool


def place(server: Server) -> dict[str, Any]:
    return {"model": f"openai/{server.model}", "api_base": server.url, "api_key": "unused", "num_retries": 0}


@call("completion", "embedded")
def completion(server: Server) -> None:
    answer = litellm.completion(**place(server), messages=MESSAGES, temperature=0, max_tokens=60)
    check("Paris" in answer.choices[0].message.content, answer)


@call("completion, streamed", "embedded")
def streamed(server: Server) -> None:
    chunks = litellm.completion(**place(server), messages=MESSAGES, temperature=0, max_tokens=60, stream=True)
    text = "".join(each.choices[0].delta.content or "" for each in chunks)
    check("Paris" in text, text)


@call("acompletion", "embedded")
async def asynchronous(server: Server) -> None:
    answer = await litellm.acompletion(**place(server), messages=MESSAGES, temperature=0, max_tokens=60)
    check("Paris" in answer.choices[0].message.content, answer)


@call("completion, response_format a pydantic class", "embedded")
def structured(server: Server) -> None:
    answer = litellm.completion(**place(server), messages=MESSAGES, response_format=Verdict, max_tokens=100)
    Verdict.model_validate_json(answer.choices[0].message.content)


@call("completion, tools, required", "embedded")
def tools(server: Server) -> None:
    answer = litellm.completion(**place(server), messages=ASKED, tools=[WEATHER], **FORCED)
    check("city" in json.loads(answer.choices[0].message.tool_calls[0].function.arguments), answer)


@call("text_completion", "embedded")
def text_completion(server: Server) -> None:
    options = place(server) | {"model": f"text-completion-openai/{server.model}"}
    answer = litellm.text_completion(**options, prompt="The capital of France is", max_tokens=5, temperature=0)
    check("Paris" in answer.choices[0].text, answer)


@call("embedding")
def embedding(server: Server) -> None:
    answer = litellm.embedding(**place(server), input=["one", "two"])
    check(len(answer.data) == 2 and len(answer.data[0]["embedding"]) > 1, answer)


@call("responses", "embedded")
def responses(server: Server) -> None:
    answer = litellm.responses(**place(server), input="What is the capital of France?", temperature=0)
    check("Paris" in answer.output_text, answer)


@call("responses, streamed", "embedded")
def responses_streamed(server: Server) -> None:
    events = litellm.responses(**place(server), input="What is the capital of France?", temperature=0, stream=True)
    text = "".join(each.delta for each in events if each.type == "response.output_text.delta")
    check("Paris" in text, text)


@call("anthropic.messages.create (Anthropic's dialect)", "embedded")
async def messages(server: Server) -> None:
    options = {"model": f"anthropic/{server.model}", "api_base": server.root, "api_key": "unused"}
    answer = await litellm.anthropic.messages.acreate(**options, messages=MESSAGES, max_tokens=60, temperature=0)
    check("Paris" in answer["content"][0]["text"], answer)


@call("create_file, create_batch, retrieve_batch, file_content", "embedded")
def batch(server: Server) -> None:
    options: dict[str, Any] = {"custom_llm_provider": "openai", "api_base": server.url, "api_key": "unused"}
    body = {"model": server.model, "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = litellm.create_file(file=("rows.jsonl", json.dumps(row).encode()), purpose="batch", **options)
    made = litellm.create_batch(
        completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file.id, **options
    )
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        made = litellm.retrieve_batch(made.id, **options)
    text = litellm.file_content(made.output_file_id, **options).text
    check("Paris" in text, text)


if __name__ == "__main__":
    run_calls()
