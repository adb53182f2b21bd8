# /// script
# dependencies = ["anthropic==2.14.0"]
# ///
"""Anthropic, Python

`Anthropic(base_url="http://127.0.0.1:4080", api_key="unused")`, without `/v1`, or `ANTHROPIC_BASE_URL` and
`ANTHROPIC_API_KEY`.
"""

from __future__ import annotations

import time
from typing import Any

import anthropic
from calls import Server, call, check, run_calls

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
#: The client has no argument for it any more.
COLD = {"temperature": 0}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
        "required": ["city", "unit"],
    },
}


def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.root, api_key="unused", max_retries=0)


@call("models.list")
def models(server: Server) -> None:
    check(server.model in [each.id for each in client(server).models.list()])


@call("messages.create", "embedded")
def create(server: Server) -> None:
    answer = client(server).messages.create(model=server.model, max_tokens=60, messages=QUESTION, extra_body=COLD)
    check("Paris" in answer.content[0].text and answer.usage.output_tokens > 0, answer)


@call("messages.create, system, stop_sequences", "embedded")
def system(server: Server) -> None:
    answer = client(server).messages.create(
        model=server.model,
        max_tokens=60,
        system="You answer in one sentence.",
        messages=QUESTION,
        extra_body=COLD,
        stop_sequences=["France"],
    )
    check(answer.stop_reason == "stop_sequence" and answer.stop_sequence == "France", answer)


@call("messages.stream", "embedded")
def stream(server: Server) -> None:
    with client(server).messages.stream(
        model=server.model, max_tokens=60, messages=QUESTION, extra_body=COLD
    ) as streamed:
        text = "".join(streamed.text_stream)
        answer = streamed.get_final_message()
    check("Paris" in text and answer.content[0].text == text and answer.stop_reason == "end_turn", answer)


@call("messages.create, tools, tool_choice any", "embedded")
def tools(server: Server) -> None:
    answer = client(server).messages.create(
        model=server.model,
        max_tokens=200,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "any"},
        extra_body=COLD,
    )
    used = [each for each in answer.content if each.type == "tool_use"]
    check(used and used[0].input["unit"] in ("C", "F") and answer.stop_reason == "tool_use", answer)


@call("messages.stream, tools, tool_choice a tool", "embedded")
def streamed_tools(server: Server) -> None:
    with client(server).messages.stream(
        model=server.model,
        max_tokens=200,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        extra_body=COLD,
    ) as streamed:
        answer = streamed.get_final_message()
    used = [each for each in answer.content if each.type == "tool_use"]
    check(used and "city" in used[0].input, answer)


@call("messages.create, a tool's result")
def tool_result(server: Server) -> None:
    used: Any = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome", "unit": "C"}}
    result: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny."}
    answer = client(server).messages.create(
        model=server.model,
        max_tokens=60,
        messages=[*QUESTION, {"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}],
        tools=[WEATHER],
    )
    check(answer.content, answer)


@call("messages.batches: create, retrieve, list, results, delete", "embedded")
def batches(server: Server) -> None:
    api = client(server)
    params: Any = {"model": server.model, "max_tokens": 20, "messages": QUESTION, "temperature": 0}
    batch = api.messages.batches.create(requests=[{"custom_id": f"r{n}", "params": params} for n in range(3)])
    while batch.processing_status != "ended":
        time.sleep(0.2)
        batch = api.messages.batches.retrieve(batch.id)
    check(batch.request_counts.succeeded == 3, batch)
    check(batch.id in [each.id for each in api.messages.batches.list()])
    results = {each.custom_id: each.result for each in api.messages.batches.results(batch.id)}
    check(set(results) == {"r0", "r1", "r2"}, results)
    check(all("Paris" in each.message.content[0].text for each in results.values()), results)
    check(api.messages.batches.delete(batch.id).id == batch.id)


@call("an error is the client's own class")
def error(server: Server) -> None:
    try:
        client(server).messages.create(model="no-such-model", max_tokens=5, messages=QUESTION)
    except anthropic.NotFoundError as error:
        check(error.body["type"] == "error", error.body)
    else:
        check(False, "no error")


if __name__ == "__main__":
    run_calls()
