# /// script
# dependencies = ["pydantic-ai-slim[openai,anthropic]==2.68.0"]
# ///
"""Pydantic AI

`Agent("openai:MODEL")` with `OPENAI_BASE_URL=http://127.0.0.1:4080/v1` and `OPENAI_API_KEY`, or
`OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url="http://127.0.0.1:4080/v1", api_key="unused"))`.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from calls import Server, call, check, run_calls
from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

COLD: Any = {"temperature": 0, "max_tokens": 60}
SOME: Any = {"temperature": 0, "max_tokens": 200}
QUESTION = "What is the capital of France?"


class Verdict(BaseModel):
    score: int
    grade: Literal["good", "bad"]


asked: list[str] = []


def get_weather(city: str) -> str:
    """The weather in a city."""
    asked.append(city)
    return "Sunny."


def chat(server: Server) -> Any:
    return OpenAIChatModel(server.model, provider=OpenAIProvider(base_url=server.url, api_key="unused"))


def responses(server: Server) -> Any:
    return OpenAIResponsesModel(server.model, provider=OpenAIProvider(base_url=server.url, api_key="unused"))


def anthropic(server: Server) -> Any:
    return AnthropicModel(server.model, provider=AnthropicProvider(base_url=server.root, api_key="unused"))


@call("Agent('openai:MODEL') (its default)", "embedded")
def default(server: Server) -> None:
    os.environ |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "unused"}
    answer = Agent(f"openai:{server.model}", model_settings=COLD).run_sync(QUESTION)
    check("Paris" in answer.output, answer)


@call("Agent('openai:MODEL', output_type=a pydantic class)", "embedded")
def default_output(server: Server) -> None:
    os.environ |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "unused"}
    answer = Agent(f"openai:{server.model}", output_type=Verdict, model_settings=SOME).run_sync(QUESTION)
    check(isinstance(answer.output, Verdict), answer)


for title, make in {
    "OpenAIChatModel": chat,
    "OpenAIResponsesModel": responses,
    "AnthropicModel": anthropic,
}.items():

    @call(f"{title}: run_sync", "embedded")
    def run_sync(server: Server, make: Any = make) -> None:
        answer = Agent(make(server), model_settings=COLD).run_sync(QUESTION)
        check("Paris" in answer.output, answer)

    @call(f"{title}: run_stream", "embedded")
    async def run_stream(server: Server, make: Any = make) -> None:
        async with Agent(make(server), model_settings=COLD).run_stream(QUESTION) as stream:
            text = [each async for each in stream.stream_text(delta=True)]
        check("Paris" in "".join(text), text)

    @call(f"{title}: output_type=a pydantic class", "embedded")
    def output(server: Server, make: Any = make) -> None:
        answer = Agent(make(server), output_type=Verdict, model_settings=SOME).run_sync(QUESTION)
        check(isinstance(answer.output, Verdict), answer)

    @call(f"{title}: a tool")
    def tool(server: Server, make: Any = make) -> None:
        asked.clear()
        answer = Agent(make(server), tools=[get_weather]).run_sync("What is the weather in Paris?")
        check(asked and answer.output, answer)


@call("OpenAIChatModel: output_type=NativeOutput(a pydantic class)", "embedded")
def native_output(server: Server) -> None:
    answer = Agent(chat(server), output_type=NativeOutput(Verdict), model_settings=SOME).run_sync(QUESTION)
    check(isinstance(answer.output, Verdict), answer)


@call("Embedder('openai:MODEL')")
def embedder(server: Server) -> None:
    os.environ |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "unused"}
    answer = Embedder(f"openai:{server.model}").embed_documents_sync(["one", "two"])
    check(len(answer.embeddings) == 2 and len(answer.embeddings[0]) > 1, answer)


if __name__ == "__main__":
    run_calls()
