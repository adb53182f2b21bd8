"""``/v1/responses``: passed through to a server that has it; else what comes in is translated to a chat completion, and
the answer back, without keeping anything.

``responses_input.py`` translates the input, ``responses_stream.py`` the answer, whole or as it comes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from gristmill.inference import bridge, chat, forwarding
from gristmill.inference.answer import Answer, Backend
from gristmill.inference.recent_items import OwnItems
from gristmill.inference.responses_input import chat_messages
from gristmill.inference.responses_stream import ENCRYPTED, response_of
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.errors import ApiError, clip, invalid_value, missing_parameter
from gristmill.wire.json import decode
from gristmill.wire.paths import RESPONSES
from gristmill.wire.responses import ResponseRequest, ResponseTool, TextFormat

PATH = RESPONSES
#: What parameters of chat completions are called here.
NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "logprobs": "include",
}
LOGPROBS = "message.output_text.logprobs"
#: The others are of hosted tools, or of what is in the answer anyway.
_INCLUDABLE = frozenset(
    {LOGPROBS, ENCRYPTED, "message.input_image.image_url", "file_search_call.results",
     "web_search_call.results", "web_search_call.action.sources", "computer_call_output.output.image_url",
     "code_interpreter_call.outputs"}
)  # fmt: skip
#: Asked for by name here, or of no use with a response.
_NOT_OF_CHAT = frozenset(
    {"messages", "n", "functions", "function_call", "response_format", "verbosity", "reasoning_effort", "logprobs",
     "max_tokens", "max_completion_tokens"}
)  # fmt: skip
_KEPT = "This server keeps no responses"
_REFUSED: dict[str, str] = {
    "previous_response_id": f"{_KEPT}: send the earlier items again, in 'input'.",
    "conversation": f"{_KEPT} and no conversations: send the earlier items again, in 'input'.",
    "background": "The lines of a batch are answered in the background anyway: leave 'background' out.",
    "store": f"{_KEPT} to look up later: leave 'store' out; the answers of a batch are kept in its output file.",
    "prompt": "This server keeps no prompt templates: send the text itself, in 'instructions' and 'input'.",
    "context_management": "This server does not shorten conversations: leave 'context_management' out.",
    "moderation": "This server does not moderate: leave 'moderation' out.",
}

_decoder = msgspec.json.Decoder(ResponseRequest)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse(body: bytes, recent: OwnItems | None = None) -> ResponseRequest:
    """With ``recent`` items in place of references to them. Raises ApiError for what no engine could answer."""
    request = decode(_decoder, body)
    if recent is not None and isinstance(request.input, list):
        request.input = recent.resolved(request.input)
    for name, why in _REFUSED.items():
        if getattr(request, name):
            raise ApiError(400, why, param=name, code="unsupported_parameter")
    if request.truncation == "auto":
        message = "This server does not shorten the input: leave 'truncation' out, and too long an input is a 400."
        raise ApiError(400, message, param="truncation", code="unsupported_value")
    for index, each in enumerate(request.include or ()):
        if each not in _INCLUDABLE:
            raise invalid_value(f"include[{index}]", each, ", ".join(f"'{known}'" for known in sorted(_INCLUDABLE)))
    return request


def chat_body(request: ResponseRequest, body: bytes, passes_through: bool) -> bytes:
    """The chat completion to ask for; ``body`` is what ``request`` was read from. Raises ApiError."""
    fields: dict[str, Any] = {
        name: getattr(request, name)
        for name in ("model", "temperature", "top_p", "user", "safety_identifier", "prompt_cache_key", "service_tier")
    }
    fields |= {
        "messages": chat_messages(request),
        # The name that every server knows; OpenAI's models that refuse it have responses themselves.
        "max_tokens": request.max_output_tokens,
        "top_logprobs": request.top_logprobs or None,
        "logprobs": True if request.top_logprobs or LOGPROBS in (request.include or ()) else None,
        "response_format": _response_format(request.text.format if request.text else None),
        # The default of the API: asking for it is asking for nothing.
        "verbosity": None if request.text is None or request.text.verbosity == "medium" else request.text.verbosity,
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
    }
    fields |= _tools(request)
    fields |= bridge.STREAMED if request.stream else {}
    given = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode(_others(body, passes_through) | given)


async def answer(body: bytes, backend: Backend, recent: OwnItems | None = None) -> Answer:
    """``recent`` are the items that the request may refer to, and to which its own are added."""
    if backend.forwards(PATH):
        return await forwarding.answer(forwarding.response_request(PATH, body), backend.ask)
    request = parse(body, recent)
    asked = chat_body(request, body, backend.forwards(chat.PATH))
    completion = await bridge.complete(asked, backend, NAMES)
    response = response_of(request, completion)
    if recent is not None and request.store is not False:
        recent.remember(response)
    return Answer(response, *bridge.tokens(completion))


def _others(body: bytes, passes_through: bool) -> dict[str, Any]:
    """Fields that responses do not have. A server may know any; an engine here knows those of chat completions."""
    known = ResponseRequest.__struct_fields__
    others: dict[str, Any] = {name: value for name, value in _fields_decoder.decode(body).items() if name not in known}
    for name in others:
        if name in _NOT_OF_CHAT or not (passes_through or name in ChatCompletionRequest.__struct_fields__):
            near = [NAMES[name]] if name in NAMES else difflib.get_close_matches(name, known, 1)
            hint = f". Did you mean '{near[0]}'?" if near else ""
            raise ApiError(400, f"Unrecognized request argument supplied: {clip(name)}{hint}", param=clip(name))
    return others


def _response_format(wanted: TextFormat | None) -> Any:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    if wanted.name is None or wanted.schema is None:
        raise missing_parameter("text.format.name" if wanted.name is None else "text.format.schema")
    schema = {name: getattr(wanted, name) for name in ("name", "description", "schema", "strict")}
    return {"type": "json_schema", "json_schema": {name: it for name, it in schema.items() if it is not None}}


def _tools(request: ResponseRequest) -> dict[str, Any]:
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(request.tools or ())]
    choice = request.tool_choice
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        tools, choice = _allowed(tools, choice)
    elif isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": _chosen(choice, "tool_choice")}}
    elif choice not in (None, "none", "auto", "required"):
        raise invalid_value("tool_choice", str(choice), "'none', 'auto', 'required', or an object")
    if not tools and choice in (None, "none", "auto"):
        return {}
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": request.parallel_tool_calls}


def _tool(tool: ResponseTool, path: str) -> dict[str, Any]:
    if tool.type != "function":
        message = (
            f"The tool '{clip(tool.type)}' is not offered here: this server runs no tools itself. Tools of type "
            "'function' are called by the client."
        )
        raise ApiError(400, message, param=f"{path}.type", code="unsupported_value")
    if tool.name is None:
        raise missing_parameter(f"{path}.name")
    function = {name: getattr(tool, name) for name in ("name", "description", "parameters", "strict")}
    return {"type": "function", "function": {name: it for name, it in function.items() if it is not None}}


def _allowed(tools: list[dict[str, Any]], choice: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Only the tools that may be called, and whether one must be."""
    mode, allowed = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required"):
        raise invalid_value("tool_choice.mode", str(mode), "'auto', 'required'")
    if not isinstance(allowed, list) or not all(isinstance(each, dict) for each in allowed):
        raise ApiError(400, "'tool_choice.tools' must be an array of tools.", param="tool_choice.tools")
    names = {_chosen(each, f"tool_choice.tools[{index}]") for index, each in enumerate(allowed)}
    if missing := names - {tool["function"]["name"] for tool in tools}:
        message = f"The tool '{clip(min(missing))}' is allowed, but is not among the 'tools'."
        raise ApiError(400, message, param="tool_choice.tools", code="invalid_value")
    return [tool for tool in tools if tool["function"]["name"] in names], mode


def _chosen(choice: Mapping[str, Any], path: str) -> str:
    if choice.get("type") != "function":
        raise invalid_value(f"{path}.type", str(choice.get("type")), "'function', 'allowed_tools'")
    if not isinstance(choice.get("name"), str):
        raise missing_parameter(f"{path}.name")
    return str(choice["name"])
