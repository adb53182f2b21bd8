"""The model's own chat template, rendered as Hugging Face transformers renders it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from gristmill.engines.protocol import EngineError, ErrorKind
from gristmill.wire.chat import Message


class ChatTemplate:
    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        """Raises jinja2.TemplateError when ``source`` is not a template."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._template = environment.from_string(source)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(self, messages: list[Message]) -> str:
        """The prompt text, ending where the assistant's answer begins. Raises EngineError (400) when the template
        refuses the messages."""
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._tokens,
            )
        except (jinja2.TemplateError, TypeError) as error:
            message = f"The model's chat template refuses these messages: {error}."
            raise EngineError(ErrorKind.INVALID_REQUEST, message, param="messages") from None


def _plain(message: Message) -> dict[str, str]:
    # Templates know "system" only; OpenAI's "developer" is its newer name.
    role = "system" if message.role == "developer" else message.role
    plain = {"role": role, "content": message.text()}
    if message.name:
        plain["name"] = message.name
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
