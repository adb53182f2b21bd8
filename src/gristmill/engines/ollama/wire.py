"""Every JSON shape of Ollama's native API that the engine sends or reads, under the fields' own names.

Durations are integers in nanoseconds. Fields the engine does not use are left out and ignored when read.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: Keeps a model loaded for ever. A number: the string "-1" is answered with 400.
FOREVER = -1


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """``options``: the runner's (a change of one reloads the model), then those of one request (never a reload)."""

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    num_thread: int | None = None
    num_predict: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class CalledFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any]


class MessageCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call in a message, sent or received; ``id`` is there from 0.12 or so on."""

    function: CalledFunction
    id: str = ""


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """``images`` are base64. ``tool_name`` and ``tool_call_id`` are of a message of the role tool."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[MessageCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``POST /api/chat``. Empty ``messages`` load the model, or set its ``keep_alive``, and compute nothing.

    ``stream`` is true for Ollama where it is absent, and so is ``truncate``, which drops the start of a long prompt
    without a word: both are always sent, except when loading.
    """

    model: str
    messages: list[ChatMessage]
    keep_alive: int
    options: Options
    stream: bool | None = None
    truncate: bool | None = None
    format: Any = None
    tools: list[dict[str, Any]] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    think: bool | None = None
    #: The prompt as the model's template makes it, instead of an answer (undocumented; since 0.11).
    debug_render_only: bool | None = msgspec.field(default=None, name="_debug_render_only")

    @property
    def only_text(self) -> bool:
        """Whether the beginning of its prompt is known from the texts of its messages."""
        return not self.tools and not any(each.images or each.tool_calls for each in self.messages)


class DebugInfo(msgspec.Struct, frozen=True):
    rendered_template: str = ""


class RenderedPrompt(msgspec.Struct, frozen=True):
    """The answer of ``/api/chat`` to ``debug_render_only``; None where the server does not know that."""

    debug_info: DebugInfo | None = msgspec.field(default=None, name="_debug_info")


class GenerateBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``POST /api/generate``; ``raw`` leaves the model's chat template out."""

    model: str
    prompt: str
    keep_alive: int
    options: Options
    stream: bool
    truncate: bool
    raw: bool
    format: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    think: bool | None = None


class EmbedBody(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """``POST /api/embed``. An empty ``input`` loads the model, or sets its ``keep_alive``. ``truncate`` is true for
    Ollama where it is absent."""

    model: str
    input: list[str]
    keep_alive: int
    options: Options
    truncate: bool | None = None
    dimensions: int | None = None


class EmbedAnswer(msgspec.Struct, frozen=True):
    """Ollama leaves out a count that is 0."""

    embeddings: list[list[float]]
    prompt_eval_count: int = 0
    load_duration: int = 0


class ShowBody(msgspec.Struct, frozen=True):
    model: str


class AnswerMessage(msgspec.Struct, frozen=True):
    content: str = ""
    thinking: str = ""
    tool_calls: list[MessageCall] = []


class Logprob(msgspec.Struct, frozen=True):
    """Ollama leaves out what is empty. With ``format`` these are from before the grammar had its say."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Logprob] = []


class AnswerPart(msgspec.Struct, frozen=True):
    """An answer of ``/api/chat`` (``message``) or ``/api/generate`` (``response``), or one line of its stream.

    The counts and the duration are in the last line only, which has ``done``. ``prompt_eval_count`` includes cached
    tokens; ``prompt_eval_cached_count`` exists from 0.33.3 on. ``error`` may come in a stream that began with 200.
    """

    done: bool | None = None
    message: AnswerMessage | None = None
    response: str | None = None
    done_reason: str | None = None
    logprobs: list[Logprob] | None = None
    load_duration: int = 0
    prompt_eval_count: int | None = None
    prompt_eval_cached_count: int | None = None
    prompt_eval_duration: int = 0
    eval_count: int | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        return self.message.content if self.message is not None else self.response or ""


class RunningModel(msgspec.Struct, frozen=True):
    """One model of ``GET /api/ps``. ``context_length`` is the num_ctx it was loaded with. Sizes are in bytes: of all of
    it, and of what is in a GPU's memory."""

    name: str
    expires_at: str = ""
    context_length: int | None = None
    size: int | None = None
    size_vram: int | None = None


class RunningModels(msgspec.Struct, frozen=True):
    models: list[RunningModel]


class TaggedModel(msgspec.Struct, frozen=True):
    """``digest`` is of the manifest: weights, template and parameters."""

    name: str
    digest: str = ""


class Tags(msgspec.Struct, frozen=True):
    """``GET /api/tags``: the models on the server's disk."""

    models: list[TaggedModel]


class Show(msgspec.Struct, frozen=True):
    """``POST /api/show``. ``parameters`` is the Modelfile's, one a line: a name, blanks, a value."""

    model_info: dict[str, Any] = {}
    parameters: str = ""
    capabilities: list[str] | None = None


class Version(msgspec.Struct, frozen=True):
    version: str
