"""What a value of the right type, but out of its bounds, is told: what would do, in words."""

from __future__ import annotations

import msgspec
import pytest

from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.embeddings import CreateEmbeddingRequest
from gristmill.wire.errors import ApiError
from gristmill.wire.json import decode

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "two words"}}


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (ChatCompletionRequest, CHAT | {"n": 0}, "Invalid value for 'n': expected an integer of at least 1."),
        (ChatCompletionRequest, CHAT | {"temperature": 5}, "'temperature': expected a number of at most 2.0."),
        (ChatCompletionRequest, CHAT | {"messages": []}, "'messages': expected at least 1 item."),
        (ChatCompletionRequest, CHAT | {"tool_choice": "x"}, "Supported values are: 'auto', 'none', 'required'."),
        (ChatCompletionRequest, CHAT | {"tools": [TOOL]}, "'tools[0].function.name': expected a string that matches"),
        (
            CreateEmbeddingRequest,
            {"model": "m", "input": "x", "encoding_format": "hex"},
            "'encoding_format': 'hex' is not supported. Supported values are: 'base64', 'float'.",
        ),
    ],
)
def test_a_value_out_of_bounds_is_told_what_would_do(kind: type, body: object, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        decode(msgspec.json.Decoder(kind), msgspec.json.encode(body))
    said = refused.value.body.message
    assert message in said and "`" not in said and "\\s" not in said
    assert refused.value.body.code == "invalid_value"
