# /// script
# dependencies = ["langchain-openai==1.7.4", "langchain==1.5.2"]
# ///
"""LangChain

`ChatOpenAI(model=MODEL, base_url="http://127.0.0.1:4080/v1", api_key="unused")`, and so for `OpenAIEmbeddings`; these
send numbers of OpenAI's tokens instead of texts, which mean nothing to other models, unless
`check_embedding_ctx_length=False`.
"""

from __future__ import annotations

from typing import Any

from calls import Server, call, check, run_calls
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

QUESTION = "What is the capital of France?"


class Verdict(BaseModel):
    """A verdict on an answer."""

    score: int
    good: bool


asked: list[str] = []


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    asked.append(city)
    return "Sunny."


def chat(server: Server, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=server.model,
        base_url=server.url,
        api_key="unused",
        temperature=0,
        max_tokens=200,
        max_retries=0,
        **options,
    )


@call("ChatOpenAI.invoke", "embedded")
def invoke(server: Server) -> None:
    answer = chat(server).invoke(QUESTION)
    check("Paris" in answer.content and answer.usage_metadata["output_tokens"] > 0, answer)


@call("ChatOpenAI.stream", "embedded")
def stream(server: Server) -> None:
    check("Paris" in "".join(each.content for each in chat(server).stream(QUESTION)))


@call("ChatOpenAI.batch", "embedded")
def batch(server: Server) -> None:
    check(all("Paris" in each.content for each in chat(server).batch([QUESTION, QUESTION])))


@call("ChatOpenAI.with_structured_output (its default)", "embedded")
def structured(server: Server) -> None:
    check(isinstance(chat(server).with_structured_output(Verdict).invoke(QUESTION), Verdict))


@call("ChatOpenAI.with_structured_output, function_calling", "embedded")
def function_calling(server: Server) -> None:
    model = chat(server).with_structured_output(Verdict, method="function_calling")
    check(isinstance(model.invoke(QUESTION), Verdict))


@call("ChatOpenAI.bind_tools, any", "embedded")
def bind_tools(server: Server) -> None:
    answer = chat(server).bind_tools([get_weather], tool_choice="any").invoke("What is the weather in Paris?")
    check(answer.tool_calls and "city" in answer.tool_calls[0]["args"], answer)


@call("create_agent, a tool")
def agent(server: Server) -> None:
    asked.clear()
    done = create_agent(chat(server), tools=[get_weather]).invoke(
        {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}, {"recursion_limit": 50}
    )
    check(asked and done["messages"][-1].content, done)


@call("ChatOpenAI, use_responses_api=True, stream", "embedded")
def responses(server: Server) -> None:
    text = "".join(str(each.text) for each in chat(server, use_responses_api=True).stream(QUESTION))
    check("Paris" in text, text)


@call("OpenAI (completions)", "embedded")
def completions(server: Server) -> None:
    model = OpenAI(model=server.model, base_url=server.url, api_key="unused", temperature=0, max_tokens=5)
    check("Paris" in model.invoke("The capital of France is"))


@call("OpenAIEmbeddings, check_embedding_ctx_length=False")
def embeddings(server: Server) -> None:
    model = OpenAIEmbeddings(
        model=server.model, base_url=server.url, api_key="unused", check_embedding_ctx_length=False
    )
    one, two = model.embed_documents(["one", "two"])
    check(len(one) == len(two) > 1)


@call("OpenAIEmbeddings (its default)")
def token_embeddings(server: Server) -> None:
    one, two = OpenAIEmbeddings(model=server.model, base_url=server.url, api_key="unused").embed_documents(
        ["one", "two"]
    )
    check(len(one) == len(two) > 1)


if __name__ == "__main__":
    run_calls()
