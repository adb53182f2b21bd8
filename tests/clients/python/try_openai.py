# /// script
# dependencies = ["openai==3.57.0"]
# ///
"""OpenAI, Python

`OpenAI(base_url="http://127.0.0.1:4080/v1", api_key="unused")`, or `OPENAI_BASE_URL` and `OPENAI_API_KEY`.
"""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import openai
from calls import Server, call, check, run_calls
from pydantic import BaseModel

MESSAGES: list[Any] = [{"role": "user", "content": "How good is a cook with three years of experience, from 0 to 10?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}

CALLED: Any = {"name": "get_weather", "arguments": '{"city": "Rome", "unit": "C"}'}


class Verdict(BaseModel):
    score: int
    grade: Literal["good", "bad"]


def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0)


@call("models.list")
def models(server: Server) -> None:
    check(server.model in [each.id for each in client(server).models.list()])


@call("chat.completions.create", "embedded")
def chat(server: Server) -> None:
    answer = client(server).chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "What is the capital of France?"}], temperature=0
    )
    check("Paris" in (answer.choices[0].message.content or ""), answer)
    check(answer.usage and answer.usage.total_tokens > 0, answer.usage)


@call("chat.completions.create, streamed", "embedded")
def chat_streamed(server: Server) -> None:
    stream = client(server).chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    check("Paris" in text, text)
    check(chunks[-1].usage and chunks[-1].usage.completion_tokens > 0, chunks[-1])


@call("chat.completions.create, logprobs", "embedded")
def logprobs(server: Server) -> None:
    answer = client(server).chat.completions.create(
        model=server.model, messages=MESSAGES, logprobs=True, top_logprobs=3, max_tokens=4
    )
    told = answer.choices[0].logprobs
    check(told and told.content and len(told.content[0].top_logprobs) == 3, answer)


@call("chat.completions.parse (a pydantic class)", "embedded")
def parse(server: Server) -> None:
    answer = client(server).chat.completions.parse(
        model=server.model, messages=MESSAGES, response_format=Verdict, max_tokens=200, temperature=0
    )
    check(isinstance(answer.choices[0].message.parsed, Verdict), answer)


@call("chat.completions.create, tools, tool_choice a function", "embedded")
def named_tool(server: Server) -> None:
    answer = client(server).chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        temperature=0,
        max_tokens=200,
    )
    called = (answer.choices[0].message.tool_calls or [])[0]
    check(called.type == "function" and json.loads(called.function.arguments)["unit"] in ("C", "F"), answer)


@call("chat.completions.create, tools, required, streamed", "embedded")
def required_tool(server: Server) -> None:
    with client(server).chat.completions.stream(
        model=server.model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    ) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    called = (answer.choices[0].message.tool_calls or [])[0]
    check("city" in json.loads(called.function.arguments), answer)
    check(answer.choices[0].finish_reason == "tool_calls", answer)


@call("chat.completions.create, a tool's result")
def tool_result(server: Server) -> None:
    answer = client(server).chat.completions.create(
        model=server.model,
        messages=[
            *MESSAGES,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": CALLED}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
        ],
        tools=[WEATHER],
    )
    check(answer.choices[0].message.content or answer.choices[0].message.tool_calls, answer)


@call("completions.create", "embedded")
def completions(server: Server) -> None:
    answer = client(server).completions.create(
        model=server.model, prompt="The capital of France is", max_tokens=5, temperature=0
    )
    check("Paris" in answer.choices[0].text, answer)


@call("embeddings.create")
def embeddings(server: Server) -> None:
    answer = client(server).embeddings.create(model=server.model, input=["one", "two"])
    check(len(answer.data) == 2 and len(answer.data[0].embedding) == len(answer.data[1].embedding) > 1, answer)


@call("responses.create", "embedded")
def responses(server: Server) -> None:
    answer = client(server).responses.create(
        model=server.model, input="What is the capital of France?", temperature=0, max_output_tokens=60
    )
    check("Paris" in answer.output_text, answer)


@call("responses.stream", "embedded")
def responses_streamed(server: Server) -> None:
    with client(server).responses.stream(
        model=server.model, input="What is the capital of France?", temperature=0, max_output_tokens=60
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_response()
    check("Paris" in answer.output_text, answer)
    check(kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds)


@call("responses.parse (a pydantic class)", "embedded")
def responses_parsed(server: Server) -> None:
    answer = client(server).responses.parse(
        model=server.model, input=MESSAGES, text_format=Verdict, max_output_tokens=200
    )
    check(isinstance(answer.output_parsed, Verdict), answer)


@call("responses.create, tools", "embedded")
def responses_tools(server: Server) -> None:
    answer = client(server).responses.create(
        model=server.model,
        input="What is the weather in Paris?",
        tools=[{"type": "function", "strict": True, **WEATHER["function"]}],
        tool_choice="required",
        temperature=0,
        max_output_tokens=200,
    )
    called = [each for each in answer.output if each.type == "function_call"]
    check(called and "city" in json.loads(called[0].arguments), answer)


def batch(server: Server, endpoint: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a batch of three rows."""
    rows = [{"custom_id": f"r{n}", "method": "POST", "url": endpoint, "body": body} for n in range(3)]
    api = client(server)
    file = api.files.create(
        file=("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()), purpose="batch"
    )
    made = api.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")  # type: ignore[arg-type]
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        made = api.batches.retrieve(made.id)
    check(made.status == "completed" and made.output_file_id, made)
    assert made.output_file_id is not None
    answers = [json.loads(line) for line in api.files.content(made.output_file_id).text.splitlines()]
    check([each["custom_id"] for each in answers] == ["r0", "r1", "r2"], answers)
    return [each["response"]["body"] for each in answers]


@call("batches, /v1/chat/completions", "embedded")
def batch_chat(server: Server) -> None:
    body = {"model": server.model, "messages": MESSAGES, "max_tokens": 5}
    check(all(each["choices"][0]["message"]["content"] for each in batch(server, "/v1/chat/completions", body)))


@call("batches, /v1/responses")
def batch_responses(server: Server) -> None:
    answers = batch(server, "/v1/responses", {"model": server.model, "input": "Hello"})
    check(all(each["output"] for each in answers), answers)


@call("batches, /v1/embeddings")
def batch_embeddings(server: Server) -> None:
    answers = batch(server, "/v1/embeddings", {"model": server.model, "input": "Hello"})
    check(all(each["data"][0]["embedding"] for each in answers), answers)


@call("uploads.upload_file_chunked")
def uploads(server: Server) -> None:
    done = client(server).uploads.upload_file_chunked(
        file=b"{}\n" * 100, filename="rows.jsonl", bytes=300, mime_type="application/jsonl", purpose="batch"
    )
    check(done.status == "completed" and done.file and done.file.bytes == 300, done)


if __name__ == "__main__":
    run_calls()
