"""Chats by the template of an Ollama model, in place of the model file's own."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.engines.embedded.tools.tool_format import HERMES, ToolFormat, written_format
from gristmill.engines.embedded.tools.tool_prompt import PlainMessage, described_messages
from gristmill.engines.errors import invalid_value, opened_and_continued
from gristmill.engines.tools.conversation import Turn, turns
from gristmill.engines.tools.offer import Offer
from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.template import OllamaTemplate, TemplateCall, TemplateMessage
from gristmill.user_error import UserError
from gristmill.wire.chat import Message

#: Put behind the message to be continued, to find its end in the prompt.
_END_MARK = "\x00CONTINUE_FINAL_MESSAGE\x00"


class OllamaChat:
    """``tool_format`` as of a ``ChatTemplate``, which this stands in for. Its prompts lack the token that begins a
    text: the tokenizer adds it, where the model wants one."""

    adds_special_tokens = True

    def __init__(self, source: str) -> None:
        """Raises UserError when ``source`` cannot be interpreted."""
        try:
            self._template = OllamaTemplate(source)
        except TemplateError as error:
            raise UserError(
                f"The template that Ollama has for this model cannot be interpreted ({error}): use the model file's "
                "own with -O template=gguf, or leave the model to Ollama with --engine ollama."
            ) from None
        native = written_format(source) if "tools" in self._template.names else None
        self._knows_tools = native is not None
        self.tool_format: ToolFormat = native or HERMES

    def render(
        self,
        messages: list[Message],
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        offer: Offer | None = None,
    ) -> str:
        """The prompt, up to where the answer begins; or, to continue the last message, up to its end. Raises
        EngineError (400) when the template refuses the messages, and for a prompt that ends otherwise."""
        if add_generation_prompt is False and not continue_final_message:
            raise invalid_value(
                "add_generation_prompt",
                "The template that Ollama has for this model always opens an answer: leave 'add_generation_prompt' "
                "out.",
            )
        if add_generation_prompt and continue_final_message:
            raise opened_and_continued()
        tools = offer.tools if offer is not None else ()
        chat = turns(messages)
        if not self._knows_tools and (tools or any(turn.calls for turn in chat)):
            plain, tools = [_plain_message(each) for each in described_messages(chat, tools)], ()
        else:
            plain = [_message(turn) for turn in chat]
        if continue_final_message:
            plain[-1] = plain[-1]._replace(content=plain[-1].content + _END_MARK)
        text = self._render(plain, [each.description() for each in tools])
        if not continue_final_message:
            return text
        kept, mark, _ = text.rpartition(_END_MARK)
        if not mark:
            raise invalid_value(
                "continue_final_message",
                "The last message cannot be continued: the template that Ollama has for this model leaves it out.",
            )
        return kept

    def _render(self, messages: Sequence[TemplateMessage], tools: Sequence[PlainMessage]) -> str:
        try:
            return self._template.render(messages, tools)
        except TemplateError as error:
            raise invalid_value(
                "messages", f"The template that Ollama has for this model refuses these messages: {error}"
            ) from None


def _message(turn: Turn) -> TemplateMessage:
    answered = turn.result_of
    return TemplateMessage(
        role=turn.role,
        content=turn.message.text(),
        thinking=turn.message.reasoning_content or "",
        calls=tuple(TemplateCall(call.id, call.name, call.arguments) for call in turn.calls),
        tool_name=answered.name if answered is not None else "",
        tool_call_id=answered.id if answered is not None else "",
    )


def _plain_message(plain: PlainMessage) -> TemplateMessage:
    return TemplateMessage(plain["role"], plain["content"], plain.get("reasoning_content", ""))
