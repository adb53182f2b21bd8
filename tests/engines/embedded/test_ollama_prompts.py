"""Prompts have as many tokens as Ollama counted, in what it answered (``engines/ollama/recordings``)."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.openvino.vocabulary import ModelVocabulary
from gristmill.engines.embedded.prompt import PromptTokens
from gristmill.models.defaults import ModelDefaults
from gristmill.models.locate import locate
from gristmill.wire.chat import Message

RECORDINGS = Path(__file__).parents[1] / "ollama" / "recordings"
#: Those whose prompt was not cut.
CHATS = ("chat_first", "chat_length", "chat_logprobs", "chat_reload", "chat_schema", "chat_second", "unknown_option")


@pytest.fixture(scope="module")
def prompts(pulled_model: str) -> PromptTokens:
    vocabulary = ModelVocabulary(prepare(locate(pulled_model), "f16").folder)
    template = json.loads((RECORDINGS / "show.json").read_text())["response"]["json"]["template"]
    return PromptTokens(vocabulary, defaults=ModelDefaults(template=template))


@pytest.mark.parametrize("name", CHATS)
def test_a_prompt_has_as_many_tokens_as_ollama_counts(prompts: PromptTokens, name: str) -> None:
    recorded = json.loads((RECORDINGS / f"{name}.json").read_text())
    messages = msgspec.convert(recorded["request"]["body"]["messages"], list[Message])
    assert len(prompts.of_messages(messages, None, None)) == recorded["response"]["json"]["prompt_eval_count"]


def test_one_that_is_too_long_too(prompts: PromptTokens) -> None:
    recorded = json.loads((RECORDINGS / "error_too_long.json").read_text())
    messages = msgspec.convert(recorded["request"]["body"]["messages"], list[Message])
    tokens = len(prompts.of_messages(messages, None, None))
    assert f"request ({tokens} tokens)" in recorded["response"]["json"]["error"]
