"""From a request in OpenAI's terms to one of Ollama's. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gristmill.engines.errors import EngineError, ErrorKind, opened_and_continued, unsupported_parameter
from gristmill.engines.ollama.forced_calls import forced_format, told
from gristmill.engines.ollama.messages import Abilities, cannot, chat_messages
from gristmill.engines.ollama.structured import Structure, structure
from gristmill.engines.ollama.wire import (
    FOREVER,
    ChatBody,
    ChatMessage,
    EmbedBody,
    GenerateBody,
    Options,
    RenderedPrompt,
)
from gristmill.engines.protocol import Request
from gristmill.engines.structured_outputs import invalid
from gristmill.engines.tools.offer import Offer, Offered, offer_of
from gristmill.wire.chat import ChatCompletionRequest
from gristmill.wire.completions import CompletionRequest

#: Request parameters that reach the model; ``check_parameters`` refuses every other by name.
PARAMETERS = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "frequency_penalty",
     "presence_penalty", "logprobs", "top_logprobs", "response_format", "structured_outputs", "tools", "tool_choice",
     "functions", "function_call"}
)  # fmt: skip

#: Besides, where the model's template leaves a last assistant message open, so that the model goes on with it.
BEGUN_ANSWERS = frozenset({"add_generation_prompt", "continue_final_message"})

#: Whether the model sees images is for the model to say.
CONTENT_PARTS = frozenset({"text", "image_url"})

_BEGINNING = "Water is"


class Frozen(NamedTuple):
    """What does not change while the engine runs. ``think`` is None for models that cannot think anyway."""

    model: str
    runner: Options
    num_ctx: int
    stops: tuple[str, ...] = ()
    think: bool | None = None
    default_num_predict: int = 1024
    abilities: Abilities = None

    @property
    def generates(self) -> bool:
        """Whether the model does more than embed."""
        return self.abilities is None or "completion" in self.abilities


class Asked(NamedTuple):
    """A request ready to be sent, and what its answer is checked against. ``text`` is all of the prompt's text.
    ``forced``: the answer is the JSON of calls; ``several``: it may hold more than one."""

    path: str
    body: ChatBody | GenerateBody
    text: str
    num_predict: int
    structure: Structure
    logprobs: bool
    forced: bool = False
    several: bool = False


def translate(request: Request, frozen: Frozen, stream: bool) -> Asked:
    """Raises EngineError for what Ollama cannot do, naming the parameter."""
    wanted = structure(request)
    limit = min(request.token_limit() or frozen.default_num_predict, frozen.num_ctx)
    logprobs, top = _logprobs(request)
    if logprobs and wanted.choice:
        # The answer's own tokens are those of a quoted JSON string, not of the choice.
        raise unsupported_parameter("logprobs (with structured_outputs.choice)", "ollama")
    shared: dict[str, Any] = {
        "model": frozen.model,
        "keep_alive": FOREVER,
        "stream": stream,
        "truncate": False,
        "options": _options(request, frozen, limit),
        "format": wanted.format,
        "logprobs": logprobs or None,
        "top_logprobs": top if logprobs else None,
        "think": frozen.think,
    }
    if isinstance(request, ChatCompletionRequest):
        _check_ending(request)
        messages = chat_messages(request.messages, frozen.model, frozen.abilities)
        offer = offer_of(request)
        if offer is not None and offer.forced:
            wanted = Structure()
            messages, shared["format"] = told(messages, offer), forced_format(offer)
        elif offer is not None:
            _check_choice(request, offer, frozen)
            shared["tools"] = [_tool(each) for each in offer.tools]
        text = "".join(message.content for message in messages)
        body = ChatBody(messages=messages, **shared)
        forced, several = offer is not None and offer.forced, offer is not None and offer.several
        return Asked("/api/chat", body, text, limit, wanted, logprobs, forced, several)
    prompt = _prompt(request)
    return Asked("/api/generate", GenerateBody(prompt=prompt, raw=True, **shared), prompt, limit, wanted, logprobs)


def load_request(frozen: Frozen, keep_alive: int) -> tuple[str, ChatBody | EmbedBody]:
    """Loads the model with the frozen options, or changes how long it stays (seconds); computes nothing. The path to
    send it to, and the body."""
    if not frozen.generates:
        return "/api/embed", EmbedBody(model=frozen.model, input=[], keep_alive=keep_alive, options=frozen.runner)
    return "/api/chat", ChatBody(model=frozen.model, messages=[], keep_alive=keep_alive, options=frozen.runner)


def warmup_body(frozen: Frozen, messages: list[ChatMessage]) -> ChatBody:
    """Computes a prefix and one token, so that the server leaves a checkpoint at the prefix's end."""
    options = msgspec.structs.replace(frozen.runner, num_predict=1, temperature=0.0)
    return ChatBody(
        model=frozen.model, messages=messages, keep_alive=FOREVER, options=options, stream=False, truncate=False,
        think=frozen.think,
    )  # fmt: skip


def render_body(frozen: Frozen) -> ChatBody:
    """Asks for the prompt that a begun answer becomes; see ``leaves_open``."""
    messages = [ChatMessage("user", "Is water wet?"), ChatMessage("assistant", _BEGINNING)]
    body = warmup_body(frozen, messages)
    return msgspec.structs.replace(body, debug_render_only=True)


def leaves_open(rendered: RenderedPrompt) -> bool:
    """Whether the model's template ends the prompt with a last assistant message's text."""
    return rendered.debug_info is not None and rendered.debug_info.rendered_template.endswith(_BEGINNING)


def _options(request: Request, frozen: Frozen, limit: int) -> Options:
    """What the request leaves out is left to the model's own settings."""
    return msgspec.structs.replace(
        frozen.runner,
        num_predict=limit,
        temperature=request.temperature,
        top_p=request.top_p,
        # The sampler's seed has 32 bits, and -1 would mean a random one.
        seed=None if request.seed is None else request.seed % 2**31,
        stop=_stops(request.stop, frozen.stops),
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
    )


def _stops(wanted: str | list[str] | None, own: tuple[str, ...]) -> list[str] | None:
    """A request's stops replace the Modelfile's on the server, which often end the turn: so both are sent."""
    stops = [wanted] if isinstance(wanted, str) else wanted or []
    stops = [stop for stop in stops if stop]
    return [*stops, *(each for each in own if each not in stops)] if stops else None


def _logprobs(request: Request) -> tuple[bool, int | None]:
    """Whether log-probabilities are asked for, and how many of the most likely tokens at each position."""
    if isinstance(request, ChatCompletionRequest):
        return bool(request.logprobs), request.top_logprobs or None
    return request.logprobs is not None, request.logprobs or None


def _check_ending(request: ChatCompletionRequest) -> None:
    """Ollama goes on with a last assistant message, and opens an answer after any other; that cannot be chosen."""
    continues = bool(request.continue_final_message)
    if continues and request.add_generation_prompt:
        raise opened_and_continued()
    if continues and request.messages[-1].role != "assistant":
        message = "'continue_final_message' needs a last message of the assistant's on Ollama."
        raise EngineError(ErrorKind.INVALID_REQUEST, message, param="continue_final_message", code="invalid_value")
    if request.add_generation_prompt is False and not continues:
        raise unsupported_parameter("add_generation_prompt", "ollama")


def _check_choice(request: ChatCompletionRequest, offer: Offer, frozen: Frozen) -> None:
    """What the model may do of itself is told to Ollama, and read by it."""
    if frozen.abilities is not None and "tools" not in frozen.abilities:
        raise cannot(
            frozen.model, "choose to call tools; a call can be forced with 'tool_choice'", frozen.abilities, offer.param
        )
    if request.response_format not in (None, {"type": "text"}) or request.structured_outputs is not None:
        name = "structured_outputs" if request.structured_outputs is not None else "response_format"
        raise invalid(
            name, "cannot be combined with tools that may be called on Ollama, as its grammar allows no calls"
        )


def _tool(offered: Offered) -> dict[str, Any]:
    described = offered.description()
    described["function"].setdefault("parameters", {"type": "object", "properties": {}})
    return described


def _prompt(request: CompletionRequest) -> str:
    if not isinstance(request.prompt, str):
        raise unsupported_parameter("prompt (token ids)", "ollama")
    if not request.prompt:
        # An empty prompt is Ollama's way to load a model: it would be answered with nothing.
        message = "Invalid value for 'prompt': it must not be empty."
        raise EngineError(ErrorKind.INVALID_REQUEST, message, param="prompt", code="invalid_value")
    return request.prompt


def options_in_words(frozen: Frozen) -> str:
    options = {name: getattr(frozen.runner, name) for name in ("num_ctx", "num_batch", "num_gpu", "num_thread")}
    return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
