"""From a prompt, chat messages or text, to its token ids; chats by the model's own template."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from gristmill.engines.embedded.ollama_chat import OllamaChat
from gristmill.engines.embedded.tokenizer import TextEncoder
from gristmill.engines.embedded.tools.tool_format import HERMES, ToolFormat, format_of
from gristmill.engines.embedded.tools.tool_prompt import PlainMessage, described_messages, native_messages
from gristmill.engines.errors import (
    EngineError,
    ErrorKind,
    context_length_exceeded,
    invalid_value,
    opened_and_continued,
)
from gristmill.engines.protocol import Request
from gristmill.engines.tools.conversation import turns
from gristmill.engines.tools.offer import Offer, offer_of
from gristmill.models.defaults import NO_DEFAULTS, ModelDefaults, with_defaults
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest, Message

#: Put behind the message to be continued, to find its end in the prompt; the text and the trailing space, which tells
#: whether the template trims messages, are those of transformers.
_END_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
#: What a template can raise on messages it was not written for.
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """Jinja, as model files have it. ``tool_format`` is how the model writes calls of tools: its template's own, or
    Hermes' where that has none that is known; then the tools are told in plain text."""

    #: What begins a text is in the template.
    adds_special_tokens = False

    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        """Raises UserError when ``source`` is not a template."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(
                f"The model's chat template is damaged at its line {error.lineno}: {error.message}"
            ) from None
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        native = format_of(source)
        self._knows_tools = native is not None
        self.tool_format: ToolFormat = native or HERMES

    def render(
        self,
        messages: list[Message],
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        offer: Offer | None = None,
    ) -> str:
        """The prompt text. It ends where the assistant's next message begins, or, to continue the last message, within
        that; with ``add_generation_prompt`` false, after the last message. The names are those of transformers and
        vLLM. Raises EngineError (400) when the template refuses the messages."""
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        if add_generation_prompt and continue_final_message:
            raise opened_and_continued()
        tools = offer.tools if offer is not None else ()
        chat = turns(messages)
        described = []
        if self._knows_tools:
            plain = native_messages(chat, short_ids=self.tool_format.trigger == "[TOOL_CALLS]")
            described = [each.description() for each in tools]
        elif tools or any(turn.calls for turn in chat):
            plain = described_messages(chat, tools)
        else:
            plain = native_messages(chat, short_ids=False)
        if not continue_final_message:
            return self._render(plain, described, add_generation_prompt)
        plain[-1]["content"] += _END_MARK
        return _cut(self._render(plain, described, False), messages[-1].text())

    def _render(self, messages: list[PlainMessage], tools: list[PlainMessage], add_generation_prompt: bool) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
            )
        except _REFUSALS as error:
            raise invalid_value("messages", f"The model's chat template refuses these messages: {error}") from None


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant said, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A block of its own, as in transformers: names set inside are not seen outside.
        return jinja2.nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

    def _unchanged(self, caller: Callable[[], str]) -> str:
        return caller()


def _cut(prompt: str, last: str) -> str:
    """``prompt`` up to the end of the last message, whose text is ``last``. Raises EngineError when it is not there."""
    place = prompt.rfind(_END_MARK.strip())
    if place < 0 or last.strip() not in prompt:
        raise invalid_value(
            "continue_final_message",
            "The last message cannot be continued: the model's chat template leaves out some or all of it.",
        )
    kept = prompt[:place]
    return kept if prompt.startswith(_END_MARK, place) else kept.rstrip()


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes what HTML does not allow.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


class PromptTokens:
    """Token ids of prompts, never empty and never cut. Raises EngineError (invalid request) for those that have none.

    With a ``context_length``, in tokens, what cannot fit it whatever its tokens are is refused by its size alone:
    tokenizing sixty megabytes takes a minute.
    """

    def __init__(
        self, encoder: TextEncoder, context_length: int | None = None, defaults: ModelDefaults = NO_DEFAULTS
    ) -> None:
        self._encoder = encoder
        self._defaults = defaults
        self._context_length = context_length
        self._template = _template_of(encoder, defaults)

    @functools.cached_property
    def _begins_texts(self) -> bool:
        """Whether the tokenizer puts a token before every text."""
        return bool(self._encoder.bos_token and self._encoder.encode("", special_tokens=True))

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes calls of tools."""
        return self._template.tool_format if self._template is not None else HERMES

    def of_request(self, request: Request) -> list[int]:
        if isinstance(request, ChatCompletionRequest):
            ending = request.add_generation_prompt, request.continue_final_message
            return self.of_messages(request.messages, *ending, offer_of(request))
        if isinstance(request.prompt, str):
            return self.of_text(request.prompt, "prompt")
        size = self._encoder.size
        if self._context_length is not None and len(request.prompt) >= self._context_length:
            refusal = context_length_exceeded(len(request.prompt), request.token_limit() or 1, self._context_length)
            refusal.param = "prompt"
            raise refusal
        if not all(type(token) is int and 0 <= token < size for token in request.prompt):
            raise invalid_value("prompt", f"A prompt of token ids must be integers from 0 to {size - 1}.")
        return _not_empty(list(request.prompt), "prompt")

    def of_messages(
        self, messages: list[Message], opening: bool | None, continuing: bool | None, offer: Offer | None = None
    ) -> list[int]:
        """``opening`` and ``continuing`` are a request's add_generation_prompt and continue_final_message."""
        if self._template is None:
            raise invalid_value("messages", "This model has no chat template: send its prompts to /v1/completions.")
        messages = with_defaults(messages, self._defaults)
        # Rendering, too, takes its time.
        if self._context_length is not None and len(messages) > self._context_length:
            raise _too_long(
                f"These are {len(messages):,} messages, of at least a token each.", "messages", self._context_length
            )
        self._check_size((message.text() for message in messages), "messages")
        text = self._template.render(messages, opening, continuing, offer)
        special_tokens = self._template.adds_special_tokens
        if special_tokens and self._begins_texts:
            # It would be there twice.
            text = text.removeprefix(self._encoder.bos_token)
        return self._encode(text, "messages", special_tokens)

    def of_text(self, text: str, param: str) -> list[int]:
        """``param`` is where the request has it."""
        return self._encode(text, param, special_tokens=True)

    def _encode(self, text: str, param: str, special_tokens: bool) -> list[int]:
        self._check_size([text], param)
        try:
            tokens = self._encoder.encode(text, special_tokens)
        except UnicodeEncodeError:
            raise invalid_value(param, "The prompt holds half of a surrogate pair, which is no character.") from None
        return _not_empty(tokens, param)

    def _check_size(self, texts: Iterable[str], param: str) -> None:
        if self._context_length is None:
            return
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        longest = self._encoder.longest_token
        if size > self._context_length * longest:
            counted = f"Your prompt has {size:,} bytes, which are at least {-(-size // longest):,} tokens"
            raise _too_long(f"{counted} (the longest token has {longest} bytes).", param, self._context_length)


def _template_of(encoder: TextEncoder, defaults: ModelDefaults) -> ChatTemplate | OllamaChat | None:
    """Raises UserError for one that cannot be used."""
    if defaults.renderer:
        raise UserError(
            f"Ollama writes this model's prompts by code of its own ('{defaults.renderer}'), not by a template: use "
            "the one in the model's file with -O template=gguf, or leave the model to Ollama with --engine ollama."
        )
    if defaults.template is not None:
        return OllamaChat(defaults.template)
    if not encoder.chat_template:
        return None
    return ChatTemplate(encoder.chat_template, encoder.bos_token, encoder.eos_token)


def template_digest(encoder: TextEncoder, defaults: ModelDefaults) -> str | None:
    """SHA-256 of the text of the template that prompts are written by; None where there is none."""
    source = encoder.chat_template if defaults.template is None else defaults.template
    return hashlib.sha256(source.encode()).hexdigest() if source else None


def _not_empty(tokens: list[int], param: str) -> list[int]:
    if not tokens:
        raise invalid_value(param, "The prompt is empty.")
    return tokens


def _too_long(counted: str, param: str, context_length: int) -> EngineError:
    message = f"This model's maximum context length is {context_length} tokens. {counted}"
    return EngineError(ErrorKind.INVALID_REQUEST, message, param=param, code="context_length_exceeded")
