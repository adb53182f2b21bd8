"""From the name of an Ollama model to what an engine needs of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from gristmill.models.defaults import ModelDefaults, Parameters
from gristmill.models.gguf_header import MAGIC, GgufHeader, read_header
from gristmill.models.ollama.go_template.lexer import TemplateError
from gristmill.models.ollama.manifest import Config, Parts, broken, read_parts
from gristmill.models.ollama.name import parse_name
from gristmill.models.ollama.params import read_params
from gristmill.models.ollama.store import find_manifest, unreadable
from gristmill.models.ollama.template import OllamaTemplate
from gristmill.models.ollama.template_choice import prefers_chat_template
from gristmill.user_error import UserError
from gristmill.wire.chat import Message


class OllamaModel(NamedTuple):
    """``path`` is a GGUF file; ``projector`` one, too, that makes images into what the model reads."""

    path: Path
    projector: Path | None
    defaults: ModelDefaults


def open_ollama_model(name: str) -> OllamaModel:
    """``name`` as Ollama writes it. Raises UserError where it is not there, damaged, or of a kind that is not read."""
    parts = read_parts(find_manifest(parse_name(name)))
    if parts.several["adapter"]:
        raise UserError(
            f"The Ollama model '{parts.name}' has an adapter (LoRA), which is not read here: run it with --engine "
            "ollama, or merge the adapter into the model."
        )
    # Those of which nothing is read here are read by the engine, which says less well why it cannot.
    projectors = parts.several["projector"]
    for path in (parts.single["model"], *projectors):
        _check_gguf(parts, path)
    header = read_header(parts.single["model"])
    defaults = ModelDefaults(
        template=_template(parts, header),
        renderer=parts.config.renderer or None,
        system=parts.text("system") or None,
        messages=_messages(parts),
        parameters=_parameters(parts),
    )
    # Of several, Ollama gives its engine the first.
    return OllamaModel(parts.single["model"], projectors[0] if projectors else None, defaults)


def _template(parts: Parts, header: GgufHeader) -> str | None:
    """The text of its template; None where Ollama would take the one in the model's file."""
    source = parts.text("template")
    if source is None:
        return None
    own = parts.config.renderer or parts.config.parser or _is_harmony(parts.config, source)
    if not own:
        try:
            template = OllamaTemplate(source)
        except TemplateError:
            # Said when a prompt is to be written.
            return source
        if prefers_chat_template(template, source, str(header.metadata.get("tokenizer.chat_template", ""))):
            return None
    return source


def _is_harmony(config: Config, source: str) -> bool:
    """Of gpt-oss: ``shouldUseHarmony`` in Ollama's server/routes.go."""
    return config.model_family in ("gptoss", "gpt-oss") and "<|start|>" in source and "<|end|>" in source


def _check_gguf(parts: Parts, path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise unreadable(path, error) from None
    if magic != MAGIC:
        raise broken(parts.name, f"the blob '{path}' is not a GGUF file")


def _parameters(parts: Parts) -> Parameters:
    content = parts.read("params")
    try:
        return Parameters() if content is None else read_params(content)
    except msgspec.DecodeError as error:
        raise broken(parts.name, f"its parameters cannot be read ({error})") from None


class _StoredMessage(msgspec.Struct):
    role: str
    content: str = ""
    images: list[str] | None = None


def _messages(parts: Parts) -> tuple[Message, ...]:
    content = parts.read("messages")
    if content is None:
        return ()
    try:
        stored = msgspec.json.decode(content, type=list[_StoredMessage])
        if any(message.images for message in stored):
            raise UserError(
                f"The Ollama model '{parts.name}' brings example messages with images, which is not possible here: "
                "run it with --engine ollama."
            )
        return tuple(msgspec.convert({"role": each.role, "content": each.content}, Message) for each in stored)
    except msgspec.DecodeError as error:
        raise broken(parts.name, f"its messages cannot be read ({error})") from None
