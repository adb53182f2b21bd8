"""Texts and chats by a converted folder's tokenizer and template, beside what transformers makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from architectures import Architecture

from gristmill.engines.embedded.openvino.vocabulary import ModelVocabulary
from gristmill.engines.embedded.prompt import PromptTokens
from gristmill.engines.embedded.tokenizer import SegmentEncoder
from gristmill.wire.chat import ChatCompletionRequest

_TEXTS = [
    "The prefix of a batch is computed once.", " leading", "trailing ", "  two  spaces  ", "a\nb\n\n\nc\t\td\r\n",
    "12345 1234567 3.14159 2024-11-26", "naïve café — “quoted” ½ ×", "日本の首都は東京です", "عاصمة مصر",
    "😀 emoji 🎉👍🏽",
    "def f(x):\n    return x**2\n", '{"a": [1, 2, {"b": null}]}', "don't I'll WE'RE", "\x00nul\x7f", "e\u0301 and é",
    "x" * 300, "",
]  # fmt: skip
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
_CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Weather?"}],
    [{"role": "user", "content": "  12345 naïve \n"}, {"role": "assistant", "content": "Yes."},
     {"role": "user", "content": "And then?"}],
]  # fmt: skip
_CALLS = [*_CHATS[0], {"role": "assistant", "content": "", "tool_calls": [_CALL]}, *_CHATS[0]]


def differences(folder: Path, tokenizer: Any, architecture: Architecture) -> dict[str, Any]:
    """How many texts and chats were compared, and those that came out otherwise."""
    vocabulary = ModelVocabulary(folder)
    prompts = PromptTokens(SegmentEncoder(vocabulary))
    marked = [f"{text}{architecture.vocabulary.end}{text}" for text in _TEXTS]
    wrong: list[str] = []
    for text in [*_TEXTS, *marked]:
        for special in (False, True):
            expected = tokenizer(text, add_special_tokens=special).input_ids
            if vocabulary.encode(text, special) != expected:
                wrong.append(f"tokens of {text!r}, special tokens {special}")
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        decoded = b"".join(vocabulary.token_bytes[token] for token in tokens).decode("utf-8", "replace")
        if decoded.lstrip(" ") != tokenizer.decode(tokens, skip_special_tokens=True).lstrip(" "):
            wrong.append(f"text of {text!r}")
    knows_tools = "tools" in architecture.vocabulary.template
    chats = [(chat, None) for chat in _CHATS]
    if knows_tools:
        chats += [(chat, [_TOOL]) for chat in [*_CHATS, _CALLS]]
    for chat, tools in chats:
        expected = tokenizer.apply_chat_template(chat, tools=tools, add_generation_prompt=True)
        if prompts.of_request(_request(chat, tools)) != expected:
            wrong.append(f"chat of {len(chat)} messages, {len(tools or ())} tools")
    return {
        "texts": len(_TEXTS) + len(marked),
        "chats": len(chats),
        "tool_format": prompts.tool_format.name if knows_tools else None,
        "different": wrong,
    }


def _request(chat: list[dict[str, Any]], tools: list[Any] | None) -> ChatCompletionRequest:
    messages = json.loads(json.dumps(chat))
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    body: dict[str, Any] = {"model": "m", "messages": messages} | ({"tools": tools} if tools else {})
    return msgspec.convert(body, ChatCompletionRequest)
