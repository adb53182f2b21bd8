"""What a model brings along for its requests: what holds where a request does not say otherwise."""

from __future__ import annotations

from typing import Literal

import msgspec

from gristmill.wire.chat import Message


class Parameters(msgspec.Struct, frozen=True):
    """None: the model says nothing. ``repetition_penalty`` is over the last ``repetition_window`` tokens of prompt and
    answer, over all of them where that is None. ``context_length``: of prompt and answer together, in tokens."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    context_length: int | None = None


class ModelDefaults(msgspec.Struct, frozen=True):
    """``template`` is Go's text/template, as Ollama's models have it; None: the model file's own chat template.
    ``renderer``: prompts are written neither by it nor by that, but by code of Ollama's, of this name.
    ``system`` is the system message of chats that begin with none; ``messages`` come before those of every chat."""

    template: str | None = None
    renderer: str | None = None
    system: str | None = None
    messages: tuple[Message, ...] = ()
    parameters: Parameters = Parameters()

    def with_template(self, chosen: Literal["model", "gguf"]) -> ModelDefaults:
        """gguf: chats by the model file's own template."""
        if chosen == "model":
            return self
        return msgspec.structs.replace(self, template=None, renderer=None)


NO_DEFAULTS = ModelDefaults()


def with_defaults(messages: list[Message], defaults: ModelDefaults) -> list[Message]:
    """What a chat is with what the model brings: its system message, unless the chat begins with one, and its messages
    before those of the chat. The rule is Ollama's: ``ChatHandler`` in
    https://github.com/ollama/ollama/blob/main/server/routes.go."""
    system = []
    if defaults.system and (not messages or messages[0].role not in ("system", "developer")):
        system = [Message(role="system", content=defaults.system)]
    return [*system, *defaults.messages, *messages]
