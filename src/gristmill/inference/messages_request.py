"""A request of Anthropic's Messages API, as the body of the chat completion that asks the same. Pure.

What engines may lack (``top_k``, ``thinking``, images, tools) is passed on under the name that servers have for it: who
answers takes it or refuses it by name, and ``NAMES`` turns that into the message's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from gristmill.wire.errors import ApiError
from gristmill.wire.json import decode
from gristmill.wire.messages import (
    AnyToolChoice,
    AutoToolChoice,
    Base64Source,
    ImageBlock,
    InputBlock,
    InputMessage,
    MessagesRequest,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ThinkingDisabled,
    ThinkingEnabled,
    ToolChoiceByName,
    ToolDefinition,
    ToolResultBlock,
    ToolUseBlock,
)

Fields = dict[str, Any]
T = TypeVar("T")

#: Parameters of chat completions that have another name in a message.
NAMES = {
    "stop": "stop_sequences", "chat_template_kwargs": "thinking", "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "continue_final_message": "messages (an assistant message at the end, to be continued)",
    "add_generation_prompt": "messages (an assistant message at the end, to be continued)",
}  # fmt: skip

_OWN_TOOLS = "Tools are defined by name and input_schema; Anthropic's own tools are not here."
#: What is possible instead, by the last name in the path of what is refused.
_INSTEAD = {
    "container": "There are no containers here.",
    "context_management": "Leave out of 'messages' what the model is not to see.",
    "defer_loading": "Every tool is loaded.",
    "diagnostics": "The usage of the answer tells how much of the prompt was cached.",
    "inference_geo": "Requests run where this server's engine is.",
    "input_examples": "Put examples into the description of the tool.",
    "input_schema": _OWN_TOOLS,
    "mcp_servers": "Call MCP servers yourself, and offer as 'tools' what they can do.",
    "output_format": "Use output_config.format.",
    "tools.type": _OWN_TOOLS,
    "content.type": "Possible are blocks of the types text, image, tool_use, tool_result and thinking.",
    "source.type": "Images come as 'base64' or by 'url'.",
}

_decoder = msgspec.json.Decoder(MessagesRequest)


def parse(body: bytes) -> MessagesRequest:
    """Raises the 400 that names what is wrong, and says what is possible instead."""
    return parse_as(_decoder, body)


def parse_as(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decode(decoder, body)
    except ApiError as error:
        names = [name.partition("[")[0] for name in (error.body.param or "").split(".")]
        instead = _INSTEAD.get(".".join(names[-2:])) or _INSTEAD.get(names[-1])
        if instead is None:
            raise
        message = f"{error.body.message.rstrip('.')}. {instead}"
        raise ApiError(error.status, message, param=error.body.param, code=error.body.code) from None


def chat_body(request: MessagesRequest, extra: Fields | None = None) -> bytes:
    """``extra`` are fields to add. Raises the 400 for what is at odds with itself."""
    fields: Fields = {"model": request.model, "messages": list(_messages(request)), "max_tokens": request.max_tokens}
    fields |= _given(
        temperature=request.temperature, top_p=request.top_p, top_k=request.top_k, stop=request.stop_sequences or None
    )
    fields |= _tools(request) | _thinking(request) | _output(request)
    if request.messages[-1].role == "assistant":
        # vLLM's names: the answer goes on where the message ends.
        fields |= {"add_generation_prompt": False, "continue_final_message": True}
    return msgspec.json.encode(fields | (extra or {}))


def _messages(request: MessagesRequest) -> Iterator[Fields]:
    if request.system:
        system = request.system
        yield {"role": "system", "content": system if isinstance(system, str) else _parts(system)}
    for index, message in enumerate(request.messages):
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        elif message.role == "assistant":
            yield _assistant(message.content, index)
        else:
            yield from _heard(message, message.content, index)


def _assistant(blocks: Sequence[InputBlock], index: int) -> Fields:
    texts: list[TextBlock] = []
    calls: list[Fields] = []
    thoughts: list[str] = []
    for place, block in enumerate(blocks):
        match block:
            case TextBlock():
                texts.append(block)
            case ToolUseBlock():
                called = {"name": block.name, "arguments": msgspec.json.encode(block.input).decode()}
                calls.append({"id": block.id, "type": "function", "function": called})
            case ThinkingBlock():
                thoughts.append(block.thinking)
            case RedactedThinkingBlock():
                pass
            case _:
                raise _misplaced(block, "assistant", index, place)
    message: Fields = {"role": "assistant", "content": _parts(texts) if texts else None if calls else ""}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _heard(message: InputMessage, blocks: Sequence[InputBlock], index: int) -> Iterator[Fields]:
    """What the model is told: a message for each result of a tool, and one for what stands between them."""
    said: list[TextBlock | ImageBlock] = []
    for place, block in enumerate(blocks):
        match block:
            case TextBlock():
                said.append(block)
            case ImageBlock() if message.role == "user":
                said.append(block)
            case ToolResultBlock() if message.role == "user":
                if said:
                    yield {"role": "user", "content": _parts(said)}
                    said = []
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block)}
            case _:
                raise _misplaced(block, message.role, index, place)
    if said or not blocks:
        yield {"role": message.role, "content": _parts(said)}


def _result(block: ToolResultBlock) -> str | list[Fields]:
    """Chat completions have no mark for a result that is an error: the text says so."""
    content = block.content or ""
    if block.is_error:
        content = f"Error: {content}" if isinstance(content, str) else [TextBlock("Error: "), *content]
    return content if isinstance(content, str) else _parts(content)


def _parts(blocks: Sequence[TextBlock | ImageBlock]) -> str | list[Fields]:
    """One text is a string, which every server takes."""
    if all(isinstance(block, TextBlock) for block in blocks) and len(blocks) <= 1:
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return [_part(block) for block in blocks]


def _part(block: TextBlock | ImageBlock) -> Fields:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    source = block.source
    url = f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Source) else source.url
    return {"type": "image_url", "image_url": {"url": url}}


def _tools(request: MessagesRequest) -> Fields:
    if not request.tools:
        if isinstance(request.tool_choice, AnyToolChoice | ToolChoiceByName):
            message = "'tool_choice' asks for a tool, but there are no 'tools' in the request."
            raise ApiError(400, message, param="tool_choice", code="invalid_value")
        return {}
    fields: Fields = {"tools": [_tool(tool) for tool in request.tools]}
    choice = request.tool_choice
    match choice:
        case None:
            return fields
        case AutoToolChoice():
            fields["tool_choice"] = "auto"
        case AnyToolChoice():
            fields["tool_choice"] = "required"
        case ToolChoiceByName(name):
            if all(tool.name != name for tool in request.tools):
                message = f"'tool_choice' asks for the tool '{name[:200]}', which is not one of the 'tools'."
                raise ApiError(400, message, param="tool_choice.name", code="invalid_value")
            fields["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            return fields | {"tool_choice": "none"}
    if choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: ToolDefinition) -> Fields:
    function = {"name": tool.name, "parameters": tool.input_schema}
    return {"type": "function", "function": function | _given(description=tool.description, strict=tool.strict)}


def _thinking(request: MessagesRequest) -> Fields:
    """``enable_thinking`` is what templates of open models call it. Adaptive leaves it to the model."""
    match request.thinking:
        case ThinkingEnabled():
            return {"chat_template_kwargs": {"enable_thinking": True}}
        case ThinkingDisabled():
            return {"chat_template_kwargs": {"enable_thinking": False}}
    return {}


def _output(request: MessagesRequest) -> Fields:
    wanted = request.output_config
    if wanted is None:
        return {}
    fields = _given(reasoning_effort=wanted.effort)
    if wanted.format is not None:
        schema = {"name": "output", "schema": wanted.format.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _given(**values: Any) -> Fields:
    return {name: value for name, value in values.items() if value is not None}


def _misplaced(block: InputBlock, role: str, index: int, place: int) -> ApiError:
    kind = block.__struct_config__.tag
    message = f"A message of the role '{role}' has no blocks of the type '{kind}'."
    return ApiError(400, message, param=f"messages[{index}].content[{place}].type", code="invalid_value")
