"""What is sent: the request as it is, but where servers differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai_stand_in import chat, complete

from gristmill.engines.errors import EngineError
from gristmill.engines.openai_compatible.translation import ServerKind, body, kind_of, path_of
from gristmill.engines.protocol import Request

ALL = {
    "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": 7, "stop": ["x"],
    "frequency_penalty": 0.1, "presence_penalty": 0.2, "logit_bias": {"5": 1.0}, "logprobs": True, "top_logprobs": 3,
    "response_format": {"type": "json_object"},
}  # fmt: skip


def sent(request: Request, kind: ServerKind = ServerKind.OTHER, stream: bool = False) -> dict[str, Any]:
    return json.loads(body(request, kind, stream))


@pytest.mark.parametrize("kind", ServerKind)
def test_every_parameter_is_passed_on_under_its_own_name(kind):
    messages = [{"role": "user", "content": "Is water wet?"}]
    assert sent(chat(**ALL), kind) == {"messages": messages, "model": "smollm2", **ALL}
    assert path_of(chat()) == "/v1/chat/completions" and path_of(complete()) == "/v1/completions"


def test_a_stream_is_asked_for_with_its_token_counts_and_only_where_someone_listens():
    streamed = sent(chat(), stream=True)
    assert streamed["stream"] is True and streamed["stream_options"]["include_usage"] is True
    assert "stream" not in sent(chat(stream=True))


def test_llama_cpp_is_asked_for_a_log_probability_in_a_way_that_gives_one():
    assert sent(chat(logprobs=True), ServerKind.LLAMA_CPP)["top_logprobs"] == 1
    assert sent(complete(logprobs=0), ServerKind.LLAMA_CPP)["logprobs"] == 1
    assert sent(complete(logprobs=0), ServerKind.VLLM)["logprobs"] == 0


def test_a_seed_fits_into_llama_cpps_32_bits():
    assert sent(chat(seed=-1), ServerKind.LLAMA_CPP)["seed"] == 2**31 - 1
    assert sent(chat(seed=2**40 + 3), ServerKind.LLAMA_CPP)["seed"] == 3
    assert sent(chat(seed=2**40 + 3), ServerKind.VLLM)["seed"] == 2**40 + 3


def test_structured_outputs_reach_each_server_in_its_own_terms():
    schema = {"type": "boolean"}
    assert sent(chat(structured_outputs={"json": schema}), ServerKind.VLLM)["structured_outputs"] == {"json": schema}
    llama = sent(chat(structured_outputs={"json": json.dumps(schema)}), ServerKind.LLAMA_CPP)
    assert llama["json_schema"] == schema and "structured_outputs" not in llama
    other = sent(chat(structured_outputs={"json": schema}), ServerKind.SGLANG)
    assert other["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    choice = sent(complete(structured_outputs={"choice": ["yes", 'say "no"']}), ServerKind.LLAMA_CPP)
    assert choice["grammar"] == r'root ::= "yes" | "say \"no\""'


@pytest.mark.parametrize(
    ("request_", "kind", "param"),
    [
        (chat(structured_outputs={"regex": "a"}), ServerKind.LLAMA_CPP, "structured_outputs.regex"),
        (chat(structured_outputs={"choice": ["a"]}), ServerKind.SGLANG, None),
        (complete(structured_outputs={"json": {}}), ServerKind.OTHER, None),
        (chat(structured_outputs={"json": {}, "choice": ["a"]}), ServerKind.OTHER, "structured_outputs"),
        (chat(structured_outputs={"json": 3}), ServerKind.OTHER, "structured_outputs.json"),
        (chat(structured_outputs={"choice": [1]}), ServerKind.LLAMA_CPP, "structured_outputs.choice"),
        (
            chat(structured_outputs={"json": {}}, response_format={"type": "json_object"}),
            ServerKind.LLAMA_CPP,
            "structured_outputs",
        ),
    ],
)
def test_what_a_server_would_ignore_is_refused_by_name(request_, kind, param):
    with pytest.raises(EngineError) as caught:
        body(request_, kind, stream=False)
    named = caught.value.param or caught.value.message
    assert named == param if param else "structured_outputs." in caught.value.message


def test_servers_are_known_by_what_they_say_of_themselves():
    assert kind_of("vllm") is ServerKind.VLLM and kind_of("llamacpp") is ServerKind.LLAMA_CPP
    assert kind_of("organization_owner") is ServerKind.OTHER and kind_of(None) is ServerKind.OTHER
