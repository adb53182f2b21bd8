# /// script
# dependencies = ["bespokelabs-curator==0.1.31"]
# ///
"""Curator

`curator.LLM(model_name=MODEL, backend="openai", backend_params={"base_url": "http://127.0.0.1:4080/v1", "api_key":
"unused"})`, with `batch=True` for batches; online it wants `OPENAI_API_KEY` set besides.
"""

from __future__ import annotations

import os
from typing import Any

os.environ |= {"OPENAI_API_KEY": "unused", "TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1"}

from bespokelabs import curator
from calls import Server, call, check, run_calls
from pydantic import BaseModel


class Verdict(BaseModel):
    score: int
    good: bool


def ask(server: Server, response_format: type[BaseModel] | None = None, **options: Any) -> list[dict[str, Any]]:
    backend = {"base_url": server.url, "api_key": "unused"} | options.pop("backend_params", {})
    model = curator.LLM(
        model_name=server.model,
        backend="openai",
        backend_params=backend,
        response_format=response_format,
        generation_params={"temperature": 0, "max_tokens": 100},
        **options,
    )
    answers = model(["What is the capital of France?", "What is the capital of Italy?"])
    return list(answers.dataset)


@call("LLM(...)", "embedded")
def online(server: Server) -> None:
    rows = ask(server)
    check(len(rows) == 2 and "Paris" in rows[0]["response"], rows)


@call("LLM(..., response_format=a pydantic class)", "embedded")
def structured(server: Server) -> None:
    rows = ask(server, Verdict)
    check(len(rows) == 2 and isinstance(rows[0]["score"], int), rows)


@call("LLM(..., batch=True)", "embedded")
def batch(server: Server) -> None:
    rows = ask(server, batch=True, backend_params={"batch_check_interval": 1})
    check(len(rows) == 2 and any("Paris" in row["response"] for row in rows), rows)


@call("LLM(..., batch=True, response_format=a pydantic class)", "embedded")
def batch_structured(server: Server) -> None:
    rows = ask(server, Verdict, batch=True, backend_params={"batch_check_interval": 1})
    check(len(rows) == 2 and isinstance(rows[0]["score"], int), rows)


if __name__ == "__main__":
    run_calls()
