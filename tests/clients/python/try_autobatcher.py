# /// script
# dependencies = ["autobatcher==0.12.0"]
# ///
"""autobatcher

`BatchOpenAI(base_url="http://127.0.0.1:4080/v1", api_key="unused")` sends background responses, and with
`completion_window="24h"` batches.
"""

from __future__ import annotations

from typing import Any

from autobatcher import BatchOpenAI
from calls import Server, call, check, run_calls

MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
QUICK: dict[str, Any] = {"batch_window_seconds": 0.5, "poll_interval_seconds": 0.5}


def client(server: Server, **options: Any) -> BatchOpenAI:
    return BatchOpenAI(base_url=server.url, api_key="unused", max_retries=0, **QUICK, **options)


@call("chat.completions.create, completion_window='24h'", "embedded")
async def chat(server: Server) -> None:
    async with client(server, completion_window="24h") as api:
        answer = await api.chat.completions.create(model=server.model, messages=MESSAGES, temperature=0)
    check("Paris" in (answer.choices[0].message.content or ""), answer)


@call("responses.create, completion_window='24h'", "embedded")
async def responses(server: Server) -> None:
    async with client(server, completion_window="24h") as api:
        answer = await api.responses.create(model=server.model, input=MESSAGES, temperature=0)
    check("Paris" in answer.output_text, answer)


@call("embeddings.create")
async def embeddings(server: Server) -> None:
    async with client(server) as api:
        answer = await api.embeddings.create(model=server.model, input="one")
    check(len(answer.data[0].embedding) > 1, answer)


@call("chat.completions.create (its default: background responses)", "embedded")
async def default(server: Server) -> None:
    async with client(server) as api:
        answer = await api.chat.completions.create(model=server.model, messages=MESSAGES, temperature=0)
    check("Paris" in (answer.choices[0].message.content or ""), answer)


if __name__ == "__main__":
    run_calls()
