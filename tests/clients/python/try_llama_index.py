# /// script
# dependencies = [
#   "llama-index-core==0.14.25",
#   "llama-index-llms-openai==0.8.3",
#   "llama-index-llms-openai-like==0.8.1",
#   "llama-index-embeddings-openai==0.7.0",
# ]
# ///
"""LlamaIndex

`OpenAILike(model=MODEL, api_base="http://127.0.0.1:4080/v1", api_key="unused", is_chat_model=True)`, with
`is_function_calling_model=True` for tools. `OpenAI` knows OpenAI's models alone: serve yours under one of their names
(`gristmill serve --alias gpt-4o-mini=MODEL`).
"""

from __future__ import annotations

from typing import Any

from calls import Server, call, check, run_calls
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

QUESTION = "What is the capital of France?"


class Verdict(BaseModel):
    """A verdict on an answer."""

    score: int
    good: bool


asked: list[str] = []


def get_weather(city: str) -> str:
    """The weather in a city."""
    asked.append(city)
    return "Sunny."


def place(server: Server) -> dict[str, Any]:
    return {"api_base": server.url, "api_key": "unused", "max_retries": 0, "temperature": 0, "max_tokens": 200}


def like(server: Server) -> OpenAILike:
    return OpenAILike(model=server.model, **place(server), is_chat_model=True, is_function_calling_model=True)


@call("OpenAI.complete (a model by an alias)", "embedded")
def complete(server: Server) -> None:
    check("Paris" in OpenAI(model="gpt-4o-mini", **place(server)).complete(QUESTION).text)


@call("OpenAI.stream_chat (a model by an alias)", "embedded")
def stream_chat(server: Server) -> None:
    stream = OpenAI(model="gpt-4o-mini", **place(server)).stream_chat([ChatMessage(role="user", content=QUESTION)])
    check("Paris" in "".join(each.delta or "" for each in stream))


@call("OpenAI.as_structured_llm (a model by an alias)", "embedded")
def structured(server: Server) -> None:
    model = OpenAI(model="gpt-4o-mini", **place(server)).as_structured_llm(Verdict)
    check(isinstance(model.complete(QUESTION).raw, Verdict))


@call("OpenAILike.chat", "embedded")
def like_chat(server: Server) -> None:
    check("Paris" in (like(server).chat([ChatMessage(role="user", content=QUESTION)]).message.content or ""))


@call("OpenAILike.as_structured_llm", "embedded")
def like_structured(server: Server) -> None:
    check(isinstance(like(server).as_structured_llm(Verdict).complete(QUESTION).raw, Verdict))


@call("OpenAILike.chat_with_tools, required", "embedded")
def tools(server: Server) -> None:
    weather = FunctionTool.from_defaults(get_weather)
    answer = like(server).chat_with_tools([weather], "What is the weather in Paris?", tool_required=True)
    [called] = like(server).get_tool_calls_from_response(answer)
    check("city" in called.tool_kwargs, answer)


@call("FunctionAgent with OpenAILike")
async def agent(server: Server) -> None:
    asked.clear()
    worker = FunctionAgent(tools=[get_weather], llm=like(server))
    answer = await worker.run("What is the weather in Paris?")
    check(asked and str(answer), answer)


@call("OpenAIResponses.complete (a model by an alias)", "embedded")
def responses(server: Server) -> None:
    options = {"api_base": server.url, "api_key": "unused", "temperature": 0, "max_output_tokens": 60}
    check("Paris" in OpenAIResponses(model="gpt-4o-mini", **options).complete(QUESTION).text)


@call("OpenAIEmbedding")
def embeddings(server: Server) -> None:
    model = OpenAIEmbedding(model_name=server.model, api_base=server.url, api_key="unused", max_retries=0)
    one, two = model.get_text_embedding_batch(["one", "two"])
    check(len(one) == len(two) > 1)


if __name__ == "__main__":
    run_calls()
