"""Whose template Ollama takes: the model's own in Go, or the chat template in its file. Pure.

Since 0.30 the latter is taken where it can do more: ``GetModel`` in
https://github.com/ollama/ollama/blob/main/server/images.go, whose heuristics these are, word for word.
"""

from __future__ import annotations

from gristmill.models.ollama.template import OllamaTemplate

_ROLE_TOOL = tuple(
    f"{name}{sign}== {quote}tool{quote}" for name, sign in (("role'] ", ""), ('role"] ', ""), ("message.role ", ""))
    for quote in "'\""
)  # fmt: skip
_TOOL_RESULTS = ("tool_response", "tool_results", "ipython", *_ROLE_TOOL)


def prefers_chat_template(template: OllamaTemplate, source: str, chat_template: str) -> bool:
    """``source`` is the text of ``template``; ``chat_template`` the file's own, empty where it has none. For models for
    which Ollama has no code of its own, and which are not gpt-oss."""
    if not chat_template:
        return False
    ours, theirs = _abilities(template), _chat_abilities(chat_template)
    if len(theirs) > len(ours):
        return not _returns_results(template, source) or _chat_returns_results(chat_template)
    if theirs != ours or "tools" not in theirs:
        return False
    return _chat_returns_results(chat_template) and not _returns_results(template, source)


def _abilities(template: OllamaTemplate) -> set[str]:
    found = {"tools"} & template.names
    if "suffix" in template.names:
        found.add("insert")
    return found | {"thinking"} if template.thinks else found


def _chat_abilities(text: str) -> set[str]:
    found = {"tools"} if _knows_tools(text) else set()
    splits = "content.split('</think>')" in text or 'content.split("</think>")' in text
    thinks = ("<think>" in text and "</think>" in text) or (
        splits and "reasoning_content" not in text and "<SPECIAL_12>" not in text
    )
    return found | {"thinking"} if thinks else found


def _knows_tools(text: str) -> bool:
    return "tools" in text or "tool_call" in text


def _returns_results(template: OllamaTemplate, source: str) -> bool:
    """Whether it has a place for what tools answered."""
    if not template.names >= {"tools", "toolcalls"}:
        return False
    return any(mark in source for mark in ('eq .Role "tool"', "tool_response", "TOOL_RESULTS"))


def _chat_returns_results(text: str) -> bool:
    calls = "tool_calls" in text or "assistant_tool_call" in text
    return _knows_tools(text) and calls and any(mark in text for mark in _TOOL_RESULTS)
