"""Requests in OpenAI's terms, made from what the recordings sent to Ollama."""

from __future__ import annotations

from typing import Any

import msgspec
from ollama_replay import MODEL, recording

from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest

SCHEMA = recording("chat_schema").sent["format"]


def chat(text: str = "Score: Candidate 1.", **parameters: Any) -> ChatCompletionRequest:
    messages = [{"role": "system", "content": "You are a recruiter."}, {"role": "user", "content": text}]
    return msgspec.convert({"model": MODEL, "messages": messages, "max_tokens": 8} | parameters, ChatCompletionRequest)


def complete(prompt: Any = "Score:", **parameters: Any) -> CompletionRequest:
    return msgspec.convert({"model": MODEL, "prompt": prompt, "max_tokens": 4} | parameters, CompletionRequest)


def asking_for(name: str) -> ChatCompletionRequest:
    """The OpenAI request whose translation is the recorded one."""
    sent = recording(name).sent
    options = sent["options"]
    limit = options["num_predict"]
    wanted: dict[str, Any] = {
        "messages": sent["messages"],
        "temperature": options["temperature"],
        "seed": options["seed"],
        "max_completion_tokens": limit if isinstance(limit, int) else int(limit),
    }
    wanted |= {key: sent[key] for key in ("logprobs", "top_logprobs") if key in sent}
    if isinstance(sent.get("format"), dict):
        wanted["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": sent["format"]}}
    return msgspec.convert({"model": MODEL} | wanted, ChatCompletionRequest)
