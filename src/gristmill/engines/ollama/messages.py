"""From the messages of a chat to Ollama's: roles, calls and their results, thoughts, images. Pure."""

from __future__ import annotations

import base64
import binascii
import re

from gristmill.engines.errors import EngineError, ErrorKind, unsupported_parameter
from gristmill.engines.ollama.wire import CalledFunction, ChatMessage, MessageCall
from gristmill.engines.tools.conversation import Turn, turns
from gristmill.wire.chat import ContentPart, Message
from gristmill.wire.errors import clip

#: What the model can do, as Ollama lists it; None where the server does not tell.
Abilities = frozenset[str] | None

_DATA_URL = re.compile(r"data:(image/[\w.+-]+)?;base64,", re.I)


def chat_messages(messages: list[Message], model: str, abilities: Abilities) -> list[ChatMessage]:
    """Raises EngineError (invalid request), naming the message, for what Ollama or the model cannot take."""
    return [_message(index, turn, model, abilities) for index, turn in enumerate(turns(messages))]


def cannot(model: str, what: str, abilities: Abilities, param: str) -> EngineError:
    can = ", ".join(sorted(abilities or ())) or "nothing"
    message = f"The model '{clip(model)}' cannot {what} (Ollama says it can do: {can}): choose one that can."
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="unsupported_parameter")


def _message(index: int, turn: Turn, model: str, abilities: Abilities) -> ChatMessage:
    param, message = f"messages[{index}]", turn.message
    names = ("refusal",) if turn.role == "tool" else ("name", "refusal")
    for name in names:
        if getattr(message, name):
            raise unsupported_parameter(f"{param}.{name}", "ollama")
    if (turn.calls or turn.result_of) and abilities is not None and "tools" not in abilities:
        # Its template would leave them out without a word.
        name = "function_call" if message.function_call else "tool_calls"
        raise cannot(model, "be told of calls", abilities, f"{param}.{name}" if turn.calls else f"{param}.role")
    calls = [MessageCall(CalledFunction(call.name, call.arguments), call.id) for call in turn.calls]
    return ChatMessage(
        turn.role,
        message.text(),
        thinking=message.reasoning_content,
        images=_images(message, param, model, abilities) or None,
        tool_calls=calls or None,
        tool_name=turn.result_of.name or None if turn.result_of else None,
        tool_call_id=turn.result_of.id if turn.result_of else None,
    )


def _images(message: Message, param: str, model: str, abilities: Abilities) -> list[str]:
    parts = message.content if isinstance(message.content, list) else []
    found = []
    for index, part in enumerate(parts):
        if part.type == "image_url":
            place = f"{param}.content[{index}].image_url"
            if abilities is not None and "vision" not in abilities:
                raise cannot(model, "see images", abilities, place)
            found.append(_image(part, place))
    return found


def _image(part: ContentPart, place: str) -> str:
    """In base64, as Ollama takes it."""
    url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    if head is None:
        raise EngineError(
            ErrorKind.INVALID_REQUEST,
            f"Invalid value for '{place}': Ollama fetches no images. Send the image itself, as a URL of the form "
            "'data:image/png;base64,...'.",
            param=place, code="invalid_value",
        )  # fmt: skip
    data = head.string[head.end() :]
    try:
        if not base64.b64decode(data, validate=True):
            raise ValueError("it is empty")
    except (binascii.Error, ValueError) as error:
        message = f"Invalid value for '{place}': its data are no base64 ({error})."
        raise EngineError(ErrorKind.INVALID_REQUEST, message, param=place, code="invalid_value") from None
    return data
