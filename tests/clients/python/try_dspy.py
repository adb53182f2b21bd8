# /// script
# dependencies = ["dspy[numpy]==3.4.1"]
# ///
"""DSPy

`dspy.LM("openai/MODEL", api_base="http://127.0.0.1:4080/v1", api_key="unused")`. It sends schemas only to models that
LiteLLM knows: serve yours under one of OpenAI's names (`gristmill serve --alias gpt-4o-mini=MODEL`) and ask for
`openai/gpt-4o-mini`.
"""

from __future__ import annotations

from typing import Any

import dspy
from calls import Server, call, check, run_calls

ALIAS = "gpt-4o-mini"


class Capital(dspy.Signature):
    """Name the capital of a country."""

    country: str = dspy.InputField()
    capital: str = dspy.OutputField()


class Sentiment(dspy.Signature):
    """Is the sentence positive?"""

    sentence: str = dspy.InputField()
    positive: bool = dspy.OutputField()


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "Sunny."


def model(server: Server, name: str = "", **options: Any) -> dspy.LM:
    return dspy.LM(
        f"openai/{name or server.model}",
        api_base=server.url,
        api_key="unused",
        temperature=0,
        max_tokens=120,
        cache=False,
        num_retries=0,
        **options,
    )


@call("LM(...)", "embedded")
def lm(server: Server) -> None:
    answer = model(server)("What is the capital of France?")
    check("Paris" in str(answer), answer)


@call(
    "Predict",
    "embedded",
    cannot="To a model that LiteLLM does not know, DSPy sends no schema: its prompt describes a form of answer, which "
    "larger models keep to, and SmolLM2 135M does not. Under a name that LiteLLM knows, any model does (next row).",
)
def predict(server: Server) -> None:
    with dspy.context(lm=model(server)):
        dspy.Predict(Capital)(country="France")


@call("Predict (a model by an alias)", "embedded")
def predict_alias(server: Server) -> None:
    with dspy.context(lm=model(server, ALIAS)):
        answer = dspy.Predict(Capital)(country="France")
    check("Paris" in answer.capital, answer)


@call("Predict, JSONAdapter, a boolean (a model by an alias)", "embedded")
def json_adapter(server: Server) -> None:
    with dspy.context(lm=model(server, ALIAS), adapter=dspy.JSONAdapter()):
        answer = dspy.Predict(Sentiment)(sentence="It is a lovely day.")
    check(isinstance(answer.positive, bool), answer)


@call("ChainOfThought (a model by an alias)", "embedded")
def chain_of_thought(server: Server) -> None:
    with dspy.context(lm=model(server, ALIAS)):
        answer = dspy.ChainOfThought(Capital)(country="France")
    check(answer.reasoning and answer.capital, answer)


@call(
    "ReAct, a tool (a model by an alias)",
    "embedded",
    cannot="DSPy sends no schema for the arguments of a tool, which it takes to be any object, but `response_format` "
    "`json_object`: keeping to the form is up to the model, and SmolLM2 135M does not.",
)
def react(server: Server) -> None:
    with dspy.context(lm=model(server, ALIAS)):
        answer = dspy.ReAct("question -> answer", tools=[get_weather], max_iters=2)(question="The weather in Paris?")
    check(answer.answer, answer)


@call("LM(..., model_type='responses')", "embedded")
def responses(server: Server) -> None:
    answer = model(server, model_type="responses")("What is the capital of France?")
    check("Paris" in str(answer), answer)


@call("Embedder")
def embedder(server: Server) -> None:
    embed = dspy.Embedder(f"openai/{server.model}", api_base=server.url, api_key="unused", caching=False)
    check(embed(["one", "two"]).shape[0] == 2)


if __name__ == "__main__":
    run_calls()
