"""What the simulated engine says and calls: words, JSON, calls and vectors drawn by a hash of the prompt. Pure."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator

from gristmill.engines.protocol import Choice, ChoiceDelta, Request
from gristmill.engines.simulated_json import instance
from gristmill.engines.structured_outputs import Constraint
from gristmill.engines.tools.conversation import turns
from gristmill.engines.tools.offer import Offered, offer_of
from gristmill.engines.tools.stream import call_deltas
from gristmill.wire.chat import ChatCompletionRequest, Message
from gristmill.wire.tools import FunctionCall, ToolCall

#: Characters a token, a fair average for English.
TOKEN_CHARS = 4
#: Numbers in a vector.
EMBEDDING_SIZE = 64
_WORDS = ("alpha", "bravo", "delta", "grist", "mill", "stone", "water", "wheel")


def prompt_text(request: Request) -> str:
    if isinstance(request, ChatCompletionRequest):
        offer = offer_of(request)
        tools = "" if offer is None else "".join(f"{each.description()}\n" for each in offer.tools)
        return tools + chat_text(request.messages)
    return request.prompt if isinstance(request.prompt, str) else " ".join(map(str, request.prompt))


def chat_text(messages: list[Message]) -> str:
    return "\n".join(f"{message.role}: {message.text()}" for message in messages)


def called(request: Request) -> Offered | None:
    """The tool that the answer calls: where a call is forced, and where the last message is not the result of one."""
    offer = offer_of(request) if isinstance(request, ChatCompletionRequest) else None
    if offer is None or not isinstance(request, ChatCompletionRequest):
        return None
    answered = turns(request.messages)[-1].role == "tool"
    if answered and not offer.forced:
        return None
    return offer.callable[digest(chat_text(request.messages))[0] % len(offer.callable)]


def calling_choice(prompt: str, index: int, tool: Offered) -> Choice:
    drawn = digest(f"{index}\0{prompt}")
    arguments = json.dumps(instance(tool.arguments(), itertools.cycle(drawn)))
    call = ToolCall(f"call_{drawn.hex()[:24]}", FunctionCall(tool.name, arguments))
    return Choice("", "tool_calls", tool_calls=(call,))


def json_choice(prompt: str, index: int, limit: int, constraint: Constraint) -> Choice:
    """JSON drawn by a hash of the prompt, an object without fields where no schema was given."""
    schema = constraint.value if constraint.kind == "json" else {"type": "object"}
    text = json.dumps(instance(schema, itertools.cycle(digest(f"{index}\0{prompt}"))))
    room = limit * TOKEN_CHARS
    return Choice(text, "stop") if len(text) <= room else Choice(text[:room], "length")


def text_choice(prompt: str, index: int, limit: int, stop: str | list[str] | None) -> Choice:
    """Words drawn by a hash of the prompt: the same prompt gets the same answer, one word a token."""
    drawn = digest(f"{index}\0{prompt}")
    words = [str(drawn[0] % 11)] + [_WORDS[byte % len(_WORDS)] for byte in drawn[1:8]]
    text, reason = " ".join(words[:limit]), "stop" if limit >= len(words) else "length"
    found = None
    for end in [stop] if isinstance(stop, str) else stop or []:
        if end and end in text:
            text, reason, found = text[: text.index(end)], "stop", end
    return Choice(text, reason, stop=found)


def words_of(choice: Choice) -> list[str]:
    return choice.text.split() + [word for call in choice.tool_calls for word in call.function.arguments.split()]


def deltas(index: int, choice: Choice) -> Iterator[ChoiceDelta]:
    """The choice as a stream brings it: word by word."""
    for call_index, call in enumerate(choice.tool_calls):
        yield from call_deltas(index, call_index, call, _pieces(call.function.arguments))
    if choice.text or not choice.tool_calls:
        yield from (ChoiceDelta(index, piece) for piece in _pieces(choice.text))


def _pieces(text: str) -> list[str]:
    first, *more = text.split(" ")
    return [first, *(f" {word}" for word in more)]


def digest(text: str) -> bytes:
    # Of all hashes the fastest on processors of today, which have instructions for it.
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def numbers_behind(text: str, prompt: str) -> list[float]:
    """Wherever the text stands with a number behind it; of no text, none."""
    return [float(each) for each in re.findall(rf"{re.escape(text)}\s*([0-9]*\.?[0-9]+)", prompt)] if text else []


def vector_of(text: str, size: int) -> list[float]:
    words = [_word_vector(word) for word in text.split() or [text]]
    summed = [sum(column) for column in zip(*words, strict=True)][:size]
    length = math.sqrt(sum(number * number for number in summed)) or 1.0
    # Seven decimals are no more than float32 holds.
    return [round(number / length, 7) for number in summed]


@functools.lru_cache(65536)
def _word_vector(word: str) -> tuple[float, ...]:
    digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=EMBEDDING_SIZE).digest()
    return tuple(byte - 127.5 for byte in digest)
