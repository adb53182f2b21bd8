# /// script
# dependencies = ["openai-agents==0.24.0"]
# ///
"""OpenAI Agents SDK

`OPENAI_BASE_URL=http://127.0.0.1:4080/v1` and `OPENAI_API_KEY`, and `Agent(..., model=MODEL)`; its default is the
Responses API. `OPENAI_AGENTS_DISABLE_TRACING=1` keeps it from sending traces to OpenAI.
"""

from __future__ import annotations

import os
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from calls import Server, call, check, run_calls
from openai import AsyncOpenAI
from pydantic import BaseModel

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
QUESTION = "What is the capital of France?"
FORCED = ModelSettings(tool_choice="required", temperature=0, max_tokens=200)
SOME = ModelSettings(temperature=0, max_tokens=200)
COLD = ModelSettings(temperature=0, max_tokens=60)


class Verdict(BaseModel):
    score: int
    good: bool


asked: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    asked.append(city)
    return "Sunny."


def responses(server: Server) -> Any:
    return OpenAIResponsesModel(server.model, AsyncOpenAI(base_url=server.url, api_key="unused", max_retries=0))


def chat(server: Server) -> Any:
    return OpenAIChatCompletionsModel(server.model, AsyncOpenAI(base_url=server.url, api_key="unused", max_retries=0))


@call("Runner.run (its default, by OPENAI_BASE_URL)", "embedded")
async def default(server: Server) -> None:
    os.environ |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "unused"}
    agent = Agent(name="a", model=server.model, model_settings=COLD)
    done = await Runner.run(agent, QUESTION)
    check("Paris" in done.final_output, done)


for title, make in {"Responses": responses, "chat completions": chat}.items():

    @call(f"{title}: Runner.run", "embedded")
    async def run(server: Server, make: Any = make) -> None:
        done = await Runner.run(Agent(name="a", model=make(server), model_settings=COLD), QUESTION)
        check("Paris" in done.final_output, done)

    @call(f"{title}: Runner.run_streamed", "embedded")
    async def streamed(server: Server, make: Any = make) -> None:
        done = Runner.run_streamed(Agent(name="a", model=make(server), model_settings=COLD), QUESTION)
        kinds = [each.type async for each in done.stream_events()]
        check("Paris" in done.final_output and "raw_response_event" in kinds, kinds)

    @call(f"{title}: output_type=a pydantic class", "embedded")
    async def output(server: Server, make: Any = make) -> None:
        done = await Runner.run(Agent(name="a", model=make(server), output_type=Verdict, model_settings=SOME), QUESTION)
        check(isinstance(done.final_output, Verdict), done)

    @call(f"{title}: a tool, required", "embedded")
    async def tool(server: Server, make: Any = make) -> None:
        asked.clear()
        agent = Agent(
            name="a",
            model=make(server),
            tools=[get_weather],
            model_settings=FORCED,
        )
        done = await Runner.run(agent, "What is the weather in Paris?", max_turns=4, run_config=RunConfig())
        check(asked and done.final_output, done)

    @call(f"{title}: a handoff")
    async def handoff(server: Server, make: Any = make) -> None:
        other = Agent(name="other", model=make(server))
        done = await Runner.run(Agent(name="a", model=make(server), handoffs=[other]), QUESTION, max_turns=10)
        check(done.final_output and done.last_agent.name == "other", done)


if __name__ == "__main__":
    run_calls()
