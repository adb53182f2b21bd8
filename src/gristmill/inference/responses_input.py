"""From the input of a response to the messages of a chat. Pure.

An answer of a chat is one message with reasoning, text and calls; in a response these are items. So a reasoning item,
an assistant's message and the function calls that follow each other become one message again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gristmill.inference.opaque_reasoning import text_of
from gristmill.wire.errors import ApiError, clip, invalid_value, missing_parameter
from gristmill.wire.responses import InputItem, InputPart, ResponseRequest

ChatMessage = dict[str, Any]

#: A developer's message is a system message to models that are not OpenAI's.
_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


def chat_messages(request: ResponseRequest) -> list[ChatMessage]:
    """Raises ApiError, which names the item, for what chats cannot say."""
    messages = _Messages()
    if request.instructions is not None:
        messages.add({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        messages.add({"role": "user", "content": request.input})
    else:
        for index, item in enumerate(request.input):
            messages.add_item(item, f"input[{index}]")
    return messages.whole()


class _Messages:
    def __init__(self) -> None:
        self._messages: list[ChatMessage] = []
        #: An assistant's message to which more may belong.
        self._open: ChatMessage | None = None

    def add(self, message: ChatMessage) -> None:
        self._open = None
        self._messages.append(message)

    def whole(self) -> list[ChatMessage]:
        return self._messages

    def add_item(self, item: InputItem, path: str) -> None:
        kind = "item_reference" if item.is_reference() else item.type or "message"
        if kind not in _ITEMS:
            raise _unsupported(f"{path}.type", kind, "items", _ITEMS)
        _ITEMS[kind](self, item, path)

    def _message(self, item: InputItem, path: str) -> None:
        if item.role is None:
            raise missing_parameter(f"{path}.role")
        if item.role not in _ROLES:
            raise invalid_value(f"{path}.role", item.role, ", ".join(f"'{role}'" for role in _ROLES))
        if item.content is None:
            raise missing_parameter(f"{path}.content")
        content = _content(item.content, f"{path}.content")
        if item.role == "assistant":
            self._assistant("content")["content"] = content
        else:
            self.add({"role": _ROLES[item.role], "content": content})

    def _reasoning(self, item: InputItem, path: str) -> None:
        parts, name = item.summary or [], "summary"
        if isinstance(item.content, list) and item.content:
            parts, name = item.content, "content"
        text = "".join(_text(part, f"{path}.{name}[{index}]") for index, part in enumerate(parts))
        if not text and item.encrypted_content:
            text = text_of(item.encrypted_content) or ""
        if not text and item.encrypted_content:
            message = (
                "Reasoning that is encrypted can only be read by who encrypted it. Send it with its text, as this "
                "server answers, or leave it out."
            )
            raise ApiError(400, message, param=f"{path}.encrypted_content", code="unsupported_value")
        if text:
            self._assistant("content", "tool_calls", "reasoning_content")["reasoning_content"] = text

    def _call(self, item: InputItem, path: str) -> None:
        for name in ("call_id", "name", "arguments"):
            if getattr(item, name) is None:
                raise missing_parameter(f"{path}.{name}")
        function = {"name": item.name, "arguments": item.arguments}
        calls = self._assistant().setdefault("tool_calls", [])
        calls.append({"id": item.call_id, "type": "function", "function": function})

    def _call_output(self, item: InputItem, path: str) -> None:
        for name in ("call_id", "output"):
            if getattr(item, name) is None:
                raise missing_parameter(f"{path}.{name}")
        assert item.output is not None
        self.add({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output, f"{path}.output")})

    def _reference(self, item: InputItem, path: str) -> None:
        message = (
            f"Item with id '{clip(item.id or '')}' not found: this server remembers the items of its last responses "
            "only, and not for batches. Send the item itself; the AI SDK does so with store: false."
        )
        raise ApiError(404, message, param=path, code="item_not_found")

    def _assistant(self, *not_yet: str) -> ChatMessage:
        """The assistant's message that is being put together, or another where that has one of these already."""
        if self._open is None or any(self._open.get(name) is not None for name in not_yet):
            self._open = {"role": "assistant", "content": None}
            self._messages.append(self._open)
        return self._open


_Add = Callable[[_Messages, InputItem, str], None]

_ITEMS: dict[str, _Add] = {
    "message": _Messages._message,
    "reasoning": _Messages._reasoning,
    "function_call": _Messages._call,
    "function_call_output": _Messages._call_output,
    "item_reference": _Messages._reference,
}


def _content(content: str | list[InputPart], path: str) -> str | list[dict[str, Any]]:
    """One text as such; anything else in parts."""
    if isinstance(content, str):
        return content
    if len(content) == 1 and content[0].type in _TEXTS:
        return _text(content[0], f"{path}[0]")
    return [_part(part, f"{path}[{index}]") for index, part in enumerate(content)]


def _part(part: InputPart, path: str) -> dict[str, Any]:
    if part.type in _TEXTS:
        return {"type": "text", "text": _text(part, path)}
    if part.type not in _PARTS:
        raise _unsupported(f"{path}.type", part.type, "parts", ("input_text", "output_text", *_PARTS))
    return _PARTS[part.type](part, path)


def _text(part: InputPart, path: str) -> str:
    if part.type not in _TEXTS:
        raise invalid_value(f"{path}.type", part.type, ", ".join(f"'{kind}'" for kind in sorted(_TEXTS)))
    if part.text is None:
        raise missing_parameter(f"{path}.text")
    return part.text


def _refusal(part: InputPart, path: str) -> dict[str, Any]:
    if part.refusal is None:
        raise missing_parameter(f"{path}.refusal")
    return {"type": "refusal", "refusal": part.refusal}


def _image(part: InputPart, path: str) -> dict[str, Any]:
    _refuse_file(part, path)
    if part.image_url is None:
        raise missing_parameter(f"{path}.image_url")
    detail = {} if part.detail in (None, "auto") else {"detail": part.detail}
    return {"type": "image_url", "image_url": {"url": part.image_url} | detail}


def _file(part: InputPart, path: str) -> dict[str, Any]:
    _refuse_file(part, path)
    if part.file_url is not None:
        message = "This server fetches no files: send the file itself in 'file_data', as a data URL."
        raise ApiError(400, message, param=f"{path}.file_url", code="unsupported_parameter")
    if part.file_data is None:
        raise missing_parameter(f"{path}.file_data")
    name = {} if part.filename is None else {"filename": part.filename}
    return {"type": "file", "file": name | {"file_data": part.file_data}}


def _audio(part: InputPart, path: str) -> dict[str, Any]:
    if part.input_audio is None:
        raise missing_parameter(f"{path}.input_audio")
    return {"type": "input_audio", "input_audio": part.input_audio}


_PARTS: dict[str, Callable[[InputPart, str], dict[str, Any]]] = {
    "input_image": _image, "input_file": _file, "input_audio": _audio, "refusal": _refusal,
}  # fmt: skip


def _refuse_file(part: InputPart, path: str) -> None:
    if part.file_id is not None:
        message = "Files that were uploaded cannot be part of an input here: send the data itself, as a data URL."
        raise ApiError(400, message, param=f"{path}.file_id", code="unsupported_parameter")


def _unsupported(param: str, kind: str, things: str, known: Sequence[str] | dict[str, Any]) -> ApiError:
    types = ", ".join(f"'{each}'" for each in known)
    message = f"Invalid value: '{clip(kind)}'. This server takes {things} of the types {types}."
    return ApiError(400, message, param=param, code="invalid_value")
