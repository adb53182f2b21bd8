"""Chats of an Ollama model: its template's prompt, the beginning of a text once, and clear words where it cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from byte_vocabulary import ByteVocabulary

from gristmill.engines.embedded.preparation import special_stops
from gristmill.engines.embedded.prompt import PromptTokens
from gristmill.engines.errors import EngineError
from gristmill.models.defaults import ModelDefaults
from gristmill.user_error import UserError
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.tools import FunctionDefinition, FunctionTool

CHATML = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}</>{{ end }}<assistant>"
HERMES = """{{ if .Tools }}{{ .Tools }}{{ end }}{{ range .Messages }}<{{ .Role }}>{{ .Content }}
{{- range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}</>{{ end }}<assistant>"""
TOOL = FunctionTool("function", FunctionDefinition("f", parameters={"type": "object", "properties": {}}))


def prompt(source: str, *messages: Message, vocabulary: Any = None, **asked: Any) -> str:
    prompts = PromptTokens(vocabulary or ByteVocabulary(), defaults=ModelDefaults(template=source))
    request = ChatCompletionRequest(list(messages) or [Message("user", "Hi")], "m", **asked)
    return bytes(prompts.of_request(request)).decode().replace("\x01", "<bos>")


def test_ollamas_template_comes_before_the_files_own() -> None:
    own = ByteVocabulary("{{ messages[0].content }}")
    assert prompt(CHATML, vocabulary=own) == "<bos><user>Hi</><assistant>"
    chosen = ModelDefaults(template=CHATML, renderer="x").with_template("gguf")
    request = ChatCompletionRequest([Message("user", "Hi")], "m")
    assert bytes(PromptTokens(own, defaults=chosen).of_request(request)) == b"Hi"


@pytest.mark.parametrize("source", [CHATML, "<bos>" + CHATML])
def test_a_text_begins_once(source: str) -> None:
    assert prompt(source) == "<bos><user>Hi</><assistant>"


def test_the_last_message_is_continued_where_it_ends() -> None:
    messages = Message("user", "Hi"), Message("assistant", "Score: ")
    continued = prompt(CHATML, *messages, continue_final_message=True)
    assert continued == "<bos><user>Hi</><assistant>Score: "
    assert prompt(CHATML, *messages) == "<bos><user>Hi</><assistant>Score: </><assistant>"


def test_what_the_template_cannot_do_is_refused_by_name() -> None:
    for asked, param in (
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
    ):
        with pytest.raises(EngineError) as caught:
            prompt(CHATML, **asked)
        assert caught.value.param == param
    with pytest.raises(EngineError, match="leaves it out") as caught:
        prompt("{{ .System }}{{ range .Messages }}{{ end }}", continue_final_message=True)
    with pytest.raises(EngineError, match="refuses these messages: line 1: there is no field Name"):
        prompt("{{ range .Messages }}{{ .Name }}{{ end }}")


def test_a_template_that_cannot_be_used_is_said_when_the_model_is_loaded() -> None:
    with pytest.raises(UserError, match=r"cannot be interpreted \(line 1: .*-O template=gguf"):
        PromptTokens(ByteVocabulary(), defaults=ModelDefaults(template="{{ nope }}"))
    with pytest.raises(UserError, match=r"by code of its own \('qwen3-coder'\).*-O template=gguf"):
        PromptTokens(ByteVocabulary(), defaults=ModelDefaults(template="{{ .Prompt }}", renderer="qwen3-coder"))


def test_tools_are_told_as_the_template_tells_them_or_in_plain_text() -> None:
    assert prompt(HERMES, tools=[TOOL]) == (
        '<bos>[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]'
        "<user>Hi</><assistant>"
    )
    told = prompt(CHATML, tools=[TOOL])
    assert told.startswith("<bos><system># Tools") and told.endswith("</><user>Hi</><assistant>")


def test_a_stop_string_that_is_a_special_token_ends_answers_as_a_token() -> None:
    assert special_stops(ByteVocabulary(), ("<bos>", "END")) == {1}
