from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from gristmill.engines.embedded.prompt import ChatTemplate
from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.user_error import UserError
from gristmill.wire.chat import ContentPart, Message

HERE = Path(__file__).parent
#: benchmarks/accuracy/templates.py wrote it with transformers.
FIXTURE = json.loads((HERE / "chat_templates.json").read_text())


def template(name: str) -> str:
    return (HERE / "chat_templates" / f"{name}.jinja").read_text()


def render(source: str, *messages: Message) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(list(messages))


@pytest.mark.parametrize("name", sorted({case["template"] for case in FIXTURE["cases"]}))
def test_renders_as_transformers_renders(name: str):
    mine = ChatTemplate(template(name), "<s>", "</s>")
    for case in FIXTURE["cases"]:
        if case["template"] != name:
            continue
        messages = msgspec.convert(FIXTURE["conversations"][case["conversation"]], list[Message])
        opening, continuing = case["add_generation_prompt"], case["continue_final_message"]
        if "prompt" in case:
            assert mine.render(messages, opening, continuing) == case["prompt"], case["conversation"]
            continue
        with pytest.raises(EngineError) as caught:
            mine.render(messages, opening, continuing)
        assert caught.value.kind is ErrorKind.INVALID_REQUEST
        if "refusal" in case:
            assert caught.value.message == f"The model's chat template refuses these messages: {case['refusal']}"
        else:
            assert caught.value.param == "continue_final_message"


def test_the_fixture_has_every_kind_of_outcome():
    outcomes = [kind for case in FIXTURE["cases"] for kind in ("prompt", "refusal", "cannot_continue") if kind in case]
    assert len(outcomes) == len(FIXTURE["cases"])
    assert min(outcomes.count(kind) for kind in ("prompt", "refusal", "cannot_continue")) >= 1
    assert {case["template"] for case in FIXTURE["cases"]} == {file.stem for file in HERE.glob("chat_templates/*")}


def test_a_developer_is_a_system_and_parts_are_one_text():
    parts = [ContentPart("text", "A"), ContentPart("text", "B")]
    assert render(template("smollm2"), Message("developer", "Grade."), Message("user", parts)) == (
        "<|im_start|>system\nGrade.<|im_end|>\n<|im_start|>user\nAB<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_begun_answer_is_continued_where_it_ends():
    messages = [Message("user", "2+2?"), Message("assistant", "Score: ")]
    prompt = ChatTemplate(template("smollm2"), "", "").render(messages, continue_final_message=True)
    assert prompt.endswith("<|im_start|>assistant\nScore: ")
    assert messages[-1].content == "Score: "


def test_continuing_and_opening_exclude_each_other():
    with pytest.raises(EngineError) as caught:
        ChatTemplate(template("smollm2"), "", "").render([Message("user", "x")], True, True)
    assert caught.value.param == "continue_final_message"


def test_the_time_is_now():
    before = datetime.now().strftime("%Y-%m-%d %H:%M")
    found = render("{{ strftime_now('%Y-%m-%d %H:%M') }}", Message("user", "x"))
    assert found in (before, datetime.now().strftime("%Y-%m-%d %H:%M"))


def test_a_damaged_template_is_named_when_the_model_is_loaded():
    with pytest.raises(UserError, match="damaged at its line 2: .*endfor"):
        ChatTemplate("ok\n{% for message in messages %}", "", "")


@pytest.mark.parametrize(
    "source", ["{{ 1 // 0 }}", "{{ 'a' + 1 }}", "{{ messages[9].content.x }}", "{{ 'x'.index('y') }}"]
)
def test_a_template_that_fails_is_an_invalid_request(source: str):
    with pytest.raises(EngineError) as caught:
        render(source, Message("user", "x"))
    assert caught.value.kind is ErrorKind.INVALID_REQUEST


def test_blocks_are_trimmed_json_is_plain_and_tokens_are_known():
    template = "{% if true %}\n    {{ bos_token }}{{ messages[0].content | tojson }}\n    {% endif %}\n"
    assert render(template, Message("user", 'é"<')) == '    <s>"é\\"<"\n'


def test_a_template_that_refuses_is_an_invalid_request():
    with pytest.raises(EngineError) as caught:
        render("{{ raise_exception('roles must alternate') }}", Message("user", "x"))
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    assert caught.value.param == "messages"
    assert caught.value.status == 400
    assert caught.value.message == "The model's chat template refuses these messages: roles must alternate"


def test_a_template_cannot_reach_into_python():
    with pytest.raises(EngineError):
        render("{{ messages.__class__.__mro__[1].__subclasses__() }}", Message("user", "x"))
