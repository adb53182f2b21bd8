from __future__ import annotations

import pytest

from gristmill.engines.openvino.chat_template import ChatTemplate
from gristmill.engines.protocol import EngineError, ErrorKind
from gristmill.wire.chat import ContentPart, Message

#: SmolLM2's own.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(template: str, *messages: Message) -> str:
    return ChatTemplate(template, "<s>", "</s>").render(list(messages))


def test_smollm2_renders_as_transformers_renders_it():
    assert render(SMOLLM2, Message("user", "Hi")) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(
        SMOLLM2, Message("developer", "Grade."), Message("user", [ContentPart("text", "A"), ContentPart("text", "B")])
    ) == ("<|im_start|>system\nGrade.<|im_end|>\n<|im_start|>user\nAB<|im_end|>\n<|im_start|>assistant\n")


def test_blocks_are_trimmed_json_is_plain_and_tokens_are_known():
    template = "{% if true %}\n    {{ bos_token }}{{ messages[0].content | tojson }}\n    {% endif %}\n"
    assert render(template, Message("user", 'é"<')) == '    <s>"é\\"<"\n'


def test_a_template_that_refuses_is_an_invalid_request():
    with pytest.raises(EngineError) as caught:
        render("{{ raise_exception('roles must alternate') }}", Message("user", "x"))
    assert caught.value.kind is ErrorKind.INVALID_REQUEST
    assert caught.value.param == "messages"
    assert "roles must alternate" in caught.value.message


def test_a_template_cannot_reach_into_python():
    with pytest.raises(EngineError):
        render("{{ messages.__class__.__mro__[1].__subclasses__() }}", Message("user", "x"))
