"""Chats with tools as prompts: by the model's own template, and in plain text where that knows none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gristmill.engines.embedded.prompt import ChatTemplate
from gristmill.engines.embedded.tools.tool_format import HERMES, MISTRAL
from gristmill.engines.errors import EngineError
from gristmill.engines.prompt_parts import prompt_parts
from gristmill.engines.tools.offer import offer_of
from gristmill.wire.chat import ChatCompletionRequest

CHATML = """{% for message in messages %}<|{{ message.role }}|>{{ message.content }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
NATIVE = """{% if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }};{% endfor %}
{% endif %}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{% if message.tool_call_id %}({{ message.name }} {{ message.tool_call_id }}){% endif %}
{% endfor %}<|assistant|>"""
SHORT_IDS = """{% if tools %}T{% endif %}{% for message in messages %}{% for call in message.tool_calls %}
{{ "[TOOL_CALLS][" }}{{ call.id }}{% endfor %}{{ message.tool_call_id }}{% endfor %}"""

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function",
        "function": {"name": "weather", "description": "Now", "strict": True, "parameters": CITY}}  # fmt: skip
SAID = (
    '{"type": "function", "function": {"name": "weather", "description": "Now", "parameters": '
    '{"type": "object", "properties": {"city": {"type": "string"}}}}}'
)


def call(call_id: str = "call_1", arguments: str = '{"city":"Köln"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]
HISTORY = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [call(), call("call_2")]},
           {"role": "tool", "tool_call_id": "call_1", "content": "dry"},
           {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "wet"}]}]  # fmt: skip


def request(messages: list[Any], **parameters: Any) -> ChatCompletionRequest:
    return msgspec.convert({"model": "m", "messages": messages} | parameters, ChatCompletionRequest)


def prompt(template: str, messages: list[Any], **parameters: Any) -> str:
    wanted = request(messages, **parameters)
    return ChatTemplate(template, "<s>", "</s>").render(wanted.messages, offer=offer_of(wanted))


def test_a_template_that_knows_tools_is_given_tools_calls_and_results() -> None:
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    assert ChatTemplate(NATIVE, "", "").tool_format == HERMES
    assert prompt(NATIVE, HISTORY, tools=[TOOL]) == (
        f"<|tools|>{SAID};<|system|>Be brief.<|user|>Weather?<|assistant|>{written}{written}"
        "<|tool|>dry(weather call_1)<|tool|>wet(weather call_2)<|assistant|>"
    )
    assert "<|tools|>" not in prompt(NATIVE, HISTORY, tools=[TOOL], tool_choice="none")
    assert "<|tools|>" not in prompt(NATIVE, HISTORY)


def test_a_template_that_knows_none_is_given_them_in_plain_text() -> None:
    found = prompt(CHATML, HISTORY, tools=[TOOL])
    head, _, rest = found.partition("Be brief.\n")
    assert head.startswith("<|system|># Tools\n") and f"\n{SAID}\n" in head
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    assert rest == (
        f"<|user|>Weather?\n<|assistant|>{written}\n{written}\n<|user|><tool_response>\ndry\n</tool_response>\n"
        "<tool_response>\nwet\n</tool_response>\n<|assistant|>"
    )
    assert prompt(CHATML, ASKED[1:], tools=[TOOL]).startswith("<|system|># Tools\n")
    assert prompt(CHATML, ASKED, tools=[TOOL], tool_choice="none") == prompt(CHATML, ASKED)
    assert "<tool_call>" in prompt(CHATML, HISTORY)


def test_the_deprecated_functions_make_the_same_prompt() -> None:
    old = [*ASKED, {"role": "assistant", "function_call": call()["function"]},
           {"role": "function", "name": "weather", "content": "dry"}]  # fmt: skip
    new = [*HISTORY[:2], HISTORY[2] | {"tool_calls": [call()]}, HISTORY[3]]
    assert prompt(CHATML, old, functions=[TOOL["function"]]) == prompt(CHATML, new, tools=[TOOL])


def test_mistrals_templates_get_ids_of_nine_letters_and_digits() -> None:
    assert ChatTemplate(SHORT_IDS, "", "").tool_format == MISTRAL
    found = prompt(SHORT_IDS, HISTORY).split("[TOOL_CALLS][")[1:]
    first, rest = found[0], found[1]
    assert len(first) == 9 and first.isalnum() and rest == rest[:9] + first + rest[:9] and rest[:9] != first
    kept = [*ASKED, {"role": "assistant", "tool_calls": [call("abcDEF123")]}]
    assert prompt(SHORT_IDS, kept).endswith("[TOOL_CALLS][abcDEF123")


@pytest.mark.parametrize("arguments", ["{", "[]", "1", '"x"', "[" * 5000, '"\ud800"'])
def test_arguments_of_an_earlier_call_that_are_no_object_are_refused(arguments: str) -> None:
    with pytest.raises(EngineError) as caught:
        prompt(CHATML, [*ASKED, {"role": "assistant", "tool_calls": [call(), call("x", arguments)]}])
    assert caught.value.param == "messages[2].tool_calls[1].function.arguments" and caught.value.status == 400


def test_a_result_without_the_id_of_its_call_is_refused() -> None:
    with pytest.raises(EngineError) as caught:
        prompt(CHATML, [*ASKED, {"role": "tool", "content": "dry"}])
    assert caught.value.param == "messages[2].tool_call_id"


def test_prompts_that_share_tools_share_their_beginning_and_others_do_not() -> None:
    other = {"type": "function", "function": {"name": "time"}}
    one, same, differs = (
        prompt_parts(request([*ASKED[:1], {"role": "user", "content": text}], tools=[tool]))
        for text, tool in (("a", TOOL), ("b", TOOL), ("a", other))
    )
    assert one[:2] == same[:2] and one[2] != same[2] and one[0] != differs[0]
    called = [*ASKED, {"role": "assistant", "tool_calls": [call()]}]
    assert prompt_parts(request(called)) != prompt_parts(request([*ASKED, {"role": "assistant"}]))
