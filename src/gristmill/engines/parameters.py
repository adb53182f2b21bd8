"""Which parameters an engine honours, and the refusal, by name, of the others. Pure."""

from __future__ import annotations

from gristmill.engines.errors import unsupported_parameter
from gristmill.engines.protocol import Capabilities, Request
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.common import INERT_PARAMETERS

#: What every engine may take: the request itself, and what asks for nothing.
_TAKEN = INERT_PARAMETERS | {"messages", "prompt", "model", "parallel_tool_calls"}

#: Values that ask for what happens anyway.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,), "best_of": (1,), "frequency_penalty": (0.0,), "presence_penalty": (0.0,), "logprobs": (False,),
    "top_logprobs": (0,), "echo": (False,), "response_format": ({"type": "text"},), "tools": ([],),
    "tool_choice": ("none", "auto"), "functions": ([],), "logit_bias": ({},), "modalities": (["text"],),
    "stop": ([],), "top_p": (1.0,), "top_k": (0, -1), "min_p": (0.0,), "repetition_penalty": (1.0,),
    "add_generation_prompt": (True,), "continue_final_message": (False,),
}  # fmt: skip


def check_parameters(request: Request, capabilities: Capabilities, engine: str) -> None:
    """Refuse, by name, a parameter the engine cannot honour: asking for it is never silently dropped."""
    for name in request.__struct_fields__:
        value = getattr(request, name)
        if value is None or name in _TAKEN or name in capabilities.parameters:
            continue
        if value not in _NEUTRAL.get(name, ()):
            raise unsupported_parameter(name, engine)
    if isinstance(request, ChatCompletionRequest):
        _check_messages(request, capabilities, engine)


def _check_messages(request: ChatCompletionRequest, capabilities: Capabilities, engine: str) -> None:
    refused = ("audio",) if "tools" in capabilities.parameters else ("tool_calls", "function_call", "audio")
    for index, message in enumerate(request.messages):
        for name in refused:
            if getattr(message, name):
                raise unsupported_parameter(f"messages[{index}].{name}", engine)
        if isinstance(message.content, list):
            for part in message.content:
                if part.type not in capabilities.content_parts:
                    raise unsupported_parameter(f"messages[{index}].content ({part.type})", engine)
