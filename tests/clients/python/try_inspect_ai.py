# /// script
# dependencies = ["inspect-ai==0.3.285", "openai==3.57.0", "anthropic==2.14.0"]
# ///
"""Inspect

`--model openai/MODEL --model-base-url http://127.0.0.1:4080/v1` (or `OPENAI_BASE_URL`) and `OPENAI_API_KEY`;
`--model openai-api/gristmill/MODEL` with `GRISTMILL_BASE_URL` and `GRISTMILL_API_KEY`; `--batch` with the first.
"""

from __future__ import annotations

import os
from typing import Any

from calls import Server, call, check, run_calls
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import BatchConfig, GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool

os.environ |= {"OPENAI_API_KEY": "unused", "ANTHROPIC_API_KEY": "unused", "GRISTMILL_API_KEY": "unused"}

QUESTIONS = ("What is the capital of France?", "Which city is the capital of France?")


asked: list[str] = []


@tool
def weather() -> Any:
    async def execute(city: str) -> str:
        """The weather in a city.

        Args:
            city: Its name.
        """
        asked.append(city)
        return "Sunny."

    return execute


def evaluate(model: Any, *solvers: Any, **config: Any) -> Any:
    task = Task(
        dataset=[Sample(input=each, target="Paris") for each in QUESTIONS],
        solver=[*solvers, generate()],
        scorer=includes(),
        config=GenerateConfig(temperature=0, max_tokens=60, max_retries=0, **config),
    )
    [log] = eval(task, model=model, display="none", log_dir="logs")
    check(log.status == "success" and log.results.total_samples == 2, log.error)
    check(all(each.output.completion or each.messages for each in log.samples), log.samples)
    return log


@call("openai/MODEL (its default)", "embedded")
def chat(server: Server) -> None:
    log = evaluate(get_model(f"openai/{server.model}", base_url=server.url))
    check("Paris" in log.samples[0].output.completion, log.samples[0].output)


@call("openai/MODEL, responses_api=true", "embedded")
def responses(server: Server) -> None:
    log = evaluate(get_model(f"openai/{server.model}", base_url=server.url, responses_api=True))
    check("Paris" in log.samples[0].output.completion, log.samples[0].output)


@call("openai-api/gristmill/MODEL", "embedded")
def compatible(server: Server) -> None:
    log = evaluate(get_model(f"openai-api/gristmill/{server.model}", base_url=server.url))
    check("Paris" in log.samples[0].output.completion, log.samples[0].output)


@call("openai-api/gristmill/MODEL, responses_api=true", "embedded")
def compatible_responses(server: Server) -> None:
    log = evaluate(get_model(f"openai-api/gristmill/{server.model}", base_url=server.url, responses_api=True))
    check("Paris" in log.samples[0].output.completion, log.samples[0].output)


@call("openai/MODEL, batch mode", "embedded")
def batch(server: Server) -> None:
    log = evaluate(
        get_model(f"openai/{server.model}", base_url=server.url), batch=BatchConfig(size=2, send_delay=1, tick=1)
    )
    check("Paris" in log.samples[0].output.completion, log.samples[0].output)


@call("openai/MODEL, responses_api=true, batch mode", "embedded")
def batch_responses(server: Server) -> None:
    log = evaluate(
        get_model(f"openai/{server.model}", base_url=server.url, responses_api=True),
        batch=BatchConfig(size=2, send_delay=1, tick=1),
    )
    check("Paris" in log.samples[0].output.completion, log.samples[0].output)


@call("openai/MODEL, use_tools")
def tools(server: Server) -> None:
    asked.clear()
    evaluate(get_model(f"openai/{server.model}", base_url=server.url), use_tools(weather()))
    check(asked, "no tool was called")


@call("openai/MODEL, responses_api=true, use_tools")
def responses_tools(server: Server) -> None:
    asked.clear()
    evaluate(get_model(f"openai/{server.model}", base_url=server.url, responses_api=True), use_tools(weather()))
    check(asked, "no tool was called")


@call("anthropic/MODEL (Anthropic's dialect)", "embedded")
def anthropic(server: Server) -> None:
    log = evaluate(get_model(f"anthropic/{server.model}", base_url=server.root))
    check(log.samples[0].output.completion, log.samples[0].output)


@call("anthropic/MODEL, batch mode", "embedded")
def anthropic_batch(server: Server) -> None:
    log = evaluate(
        get_model(f"anthropic/{server.model}", base_url=server.root), batch=BatchConfig(size=2, send_delay=1, tick=1)
    )
    check(log.samples[0].output.completion, log.samples[0].output)


if __name__ == "__main__":
    run_calls()
