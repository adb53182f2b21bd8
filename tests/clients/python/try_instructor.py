# /// script
# dependencies = ["instructor==1.17.0"]
# ///
"""Instructor

`instructor.from_openai(OpenAI(base_url="http://127.0.0.1:4080/v1", api_key="unused"))`, or
`instructor.from_provider("openai/MODEL", base_url="http://127.0.0.1:4080/v1", api_key="unused")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import instructor
import openai
from calls import Server, call, check, run_calls
from pydantic import BaseModel

MESSAGES: list[Any] = [{"role": "user", "content": "How good is a cook with three years of experience, from 0 to 10?"}]
COLD: dict[str, Any] = {"temperature": 0, "max_tokens": 200}
MODES = {
    "TOOLS (its default)": instructor.Mode.TOOLS,
    "TOOLS_STRICT": instructor.Mode.TOOLS_STRICT,
    "JSON_SCHEMA": instructor.Mode.JSON_SCHEMA,
    "RESPONSES_TOOLS": instructor.Mode.RESPONSES_TOOLS,
}


class Verdict(BaseModel):
    score: int
    grade: Literal["good", "bad"]


def client(server: Server, **options: Any) -> Any:
    return instructor.from_openai(
        openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0), model=server.model, **options
    )


def create(server: Server, mode: instructor.Mode | None = None) -> None:
    options = {} if mode in (None, instructor.Mode.TOOLS) else {"mode": mode}
    answer = client(server, **options).create(response_model=Verdict, messages=MESSAGES, max_retries=0, **COLD)
    check(isinstance(answer, Verdict), answer)


for name, mode in MODES.items():
    call(f"from_openai, create, {name}", "embedded")(lambda server, mode=mode: create(server, mode))


@call(
    "from_openai, create, JSON",
    "embedded",
    cannot="This mode sends no schema, only `response_format` `json_object` and a prompt that describes the object: "
    "keeping to it is up to the model, and SmolLM2 135M does not. TOOLS and JSON_SCHEMA are kept to by any.",
)
def json_object(server: Server) -> None:
    create(server, instructor.Mode.JSON)


@call("from_provider, create", "embedded")
def provider(server: Server) -> None:
    made = instructor.from_provider(f"openai/{server.model}", base_url=server.url, api_key="unused")
    answer = made.create(response_model=Verdict, messages=MESSAGES, max_retries=0)
    check(isinstance(answer, Verdict), answer)


@call("create_partial (streamed)", "embedded")
def partial(server: Server) -> None:
    *_, last = client(server).create_partial(response_model=Verdict, messages=MESSAGES, max_retries=0)
    check(last.grade in ("good", "bad"), last)


@call("create, response_model=Iterable[...], max_tokens", "embedded")
def several(server: Server) -> None:
    answer = client(server).create(response_model=Iterable[Verdict], messages=MESSAGES, max_retries=0, max_tokens=400)
    check(all(isinstance(each, Verdict) for each in answer))


if __name__ == "__main__":
    run_calls()
