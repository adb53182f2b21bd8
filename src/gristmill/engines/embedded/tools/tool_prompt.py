"""Chats with tools as a model's template takes them, and in plain text for templates that know no tools. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from gristmill.engines.embedded.tools.tool_format import HERMES
from gristmill.engines.tools.conversation import PastCall, Turn
from gristmill.engines.tools.offer import Offered

#: What a template is given for one message.
PlainMessage = dict[str, Any]

_INTRODUCTION = """# Tools

You can call functions. These are there, one a line, each with the JSON schema of its parameters:
{tools}

To call functions, end your answer with one such block for each call:
<tool_call>
{{"name": "the function's name", "arguments": {{"parameter": "value"}}}}
</tool_call>
The results will come in <tool_response> blocks."""
#: Mistral's templates take no other ids than these.
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


def native_messages(turns: Sequence[Turn], short_ids: bool) -> list[PlainMessage]:
    """For a template that knows tools. ``short_ids``: it wants ids of nine letters and digits."""
    return [_native(turn, short_ids) for turn in turns]


def described_messages(turns: Sequence[Turn], tools: Sequence[Offered]) -> list[PlainMessage]:
    """For a template that knows none: the tools in the system message, calls and results in the text, as Hermes' models
    write them. Results that follow each other are one message, as some templates want the roles to alternate."""
    found: list[PlainMessage] = []
    previous = None
    for turn in turns:
        if turn.role == "tool":
            result = f"<tool_response>\n{turn.message.text()}\n</tool_response>"
            if previous == "tool":
                found[-1]["content"] += f"\n{result}"
            else:
                found.append({"role": "user", "content": result})
        else:
            plain = _plain(turn)
            calls = [_written(call) for call in turn.calls]
            plain["content"] = "\n".join(filter(None, (plain["content"], *calls)))
            found.append(plain)
        previous = turn.role
    return _introduced(found, tools) if tools else found


def _introduced(messages: list[PlainMessage], tools: Sequence[Offered]) -> list[PlainMessage]:
    lines = "\n".join(json.dumps(each.description(), ensure_ascii=False) for each in tools)
    introduction = _INTRODUCTION.format(tools=lines)
    # The tools first: rows that share them share the beginning of the prompt, whatever else the system message says.
    if messages and messages[0]["role"] == "system":
        first = messages[0] | {"content": f"{introduction}\n\n{messages[0]['content']}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": introduction}, *messages]


def _written(call: PastCall) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return f"{HERMES.before_name}{call.name}{HERMES.after_name}{arguments}{HERMES.after_arguments}"


def _plain(turn: Turn) -> PlainMessage:
    plain: PlainMessage = {"role": turn.role, "content": turn.message.text()}
    if turn.message.name:
        plain["name"] = turn.message.name
    if turn.message.reasoning_content:
        plain["reasoning_content"] = turn.message.reasoning_content
    return plain


def _native(turn: Turn, short_ids: bool) -> PlainMessage:
    plain = _plain(turn)
    if turn.calls:
        plain["tool_calls"] = [
            {"type": "function", "id": _id(call, short_ids),
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]  # fmt: skip
    if turn.result_of is not None:
        plain["tool_call_id"] = _id(turn.result_of, short_ids)
        if turn.result_of.name:
            plain["name"] = turn.result_of.name
    return plain


def _id(call: PastCall, short: bool) -> str:
    if not short or _SHORT_ID.fullmatch(call.id):
        return call.id
    return hashlib.blake2b(call.id.encode("utf-8", "replace"), digest_size=8).hexdigest()[:9]
