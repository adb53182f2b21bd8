"""From a request to the body sent, where servers differ from OpenAI's API. Pure.

Requests are passed on as they are, but for vLLM's ``structured_outputs``, which other servers would ignore. Sources of
the differences: vLLM's ``entrypoints/openai`` (0.32), llama.cpp's ``tools/server`` (b11434).
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from gristmill.engines.errors import unsupported_parameter
from gristmill.engines.protocol import ForwardRequest, Request
from gristmill.engines.structured_outputs import Constraint, invalid, structured_outputs
from gristmill.wire.chat import ChatCompletionRequest, StreamOptions

#: Parameters that every such server is passed; ``check_parameters`` refuses the others by name.
PARAMETERS = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n", "stop", "frequency_penalty",
     "presence_penalty", "logit_bias"}
)  # fmt: skip
#: Those for which a probe must have shown that the server honours them.
LOGPROBS = frozenset({"logprobs", "top_logprobs"})
STRUCTURE = frozenset({"response_format", "structured_outputs"})

_CHAT = "/v1/chat/completions"
_STRUCTURED_OUTPUTS = b'"structured_outputs"'


class ServerKind(enum.StrEnum):
    """By ``owned_by`` in the server's list of models."""

    LLAMA_CPP = "llamacpp"
    VLLM = "vllm"
    SGLANG = "sglang"
    GRISTMILL = "gristmill"
    OTHER = "other"


_KNOW_STRUCTURED_OUTPUTS = frozenset({ServerKind.VLLM, ServerKind.GRISTMILL})


class _Structure(msgspec.Struct):
    structured_outputs: Any = None
    response_format: Any = None


_structure_decoder = msgspec.json.Decoder(_Structure)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def kind_of(owned_by: str | None) -> ServerKind:
    try:
        return ServerKind(owned_by or "")
    except ValueError:
        return ServerKind.OTHER


def path_of(request: Request) -> str:
    return _CHAT if isinstance(request, ChatCompletionRequest) else "/v1/completions"


def forwarded_body(request: ForwardRequest, kind: ServerKind) -> bytes:
    """Byte for byte what came, but for ``structured_outputs`` that the server does not know."""
    if kind in _KNOW_STRUCTURED_OUTPUTS or _STRUCTURED_OUTPUTS not in request.body:
        return request.body
    try:
        asked = _structure_decoder.decode(request.body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("structured_outputs", f"cannot be read ({error})") from None
    if asked.structured_outputs is None:
        return request.body
    constraint = structured_outputs(asked.structured_outputs, asked.response_format)
    fields: dict[str, Any] = _fields_decoder.decode(request.body)
    del fields["structured_outputs"]
    return msgspec.json.encode(fields | _structure(request.path == _CHAT, constraint, kind))


def body(request: Request, kind: ServerKind, stream: bool) -> bytes:
    """Raises EngineError for what the server would silently ignore, naming the parameter."""
    options = StreamOptions(include_usage=True) if stream else None
    request = msgspec.structs.replace(request, stream=stream or None, stream_options=options)
    extra: dict[str, Any] = {}
    if request.structured_outputs is not None and kind not in _KNOW_STRUCTURED_OUTPUTS:
        response_format = request.response_format if isinstance(request, ChatCompletionRequest) else None
        constraint = structured_outputs(request.structured_outputs, response_format)
        extra = _structure(isinstance(request, ChatCompletionRequest), constraint, kind)
        request = msgspec.structs.replace(request, structured_outputs=None)
    if kind is ServerKind.LLAMA_CPP:
        request = _for_llama_cpp(request)
    if not extra:
        return msgspec.json.encode(request)
    return msgspec.json.encode(msgspec.to_builtins(request) | extra)


def _for_llama_cpp(request: Request) -> Request:
    if request.seed is not None:
        # Its sampler's seed has 32 bits, and the largest value would mean a random one.
        request = msgspec.structs.replace(request, seed=request.seed % 2**31)
    if isinstance(request, ChatCompletionRequest):
        if request.logprobs and not request.top_logprobs:
            # Without top_logprobs it would list twenty, and with none give no log-probabilities at all.
            request = msgspec.structs.replace(request, top_logprobs=1)
    elif request.logprobs == 0:
        request = msgspec.structs.replace(request, logprobs=1)
    return request


def _structure(chat: bool, constraint: Constraint, kind: ServerKind) -> dict[str, Any]:
    """vLLM's ``structured_outputs`` in the terms of a server that does not know it."""
    if constraint.kind in ("json", "json_object"):
        schema = constraint.value if constraint.kind == "json" else {"type": "object"}
        if kind is ServerKind.LLAMA_CPP:
            return {"json_schema": schema}
        if chat:
            if constraint.kind == "json_object":
                return {"response_format": {"type": "json_object"}}
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}
    if constraint.kind == "choice" and kind is ServerKind.LLAMA_CPP:
        return {"grammar": "root ::= " + " | ".join(map(_literal, constraint.value))}
    raise unsupported_parameter(constraint.param, "openai_compatible")


def _literal(text: str) -> str:
    """A terminal of llama.cpp's grammar notation, whose escapes are those of JSON."""
    return msgspec.json.encode(text).decode()
