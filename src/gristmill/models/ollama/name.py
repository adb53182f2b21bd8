"""Names of Ollama's models. Pure.

Rules: https://github.com/ollama/ollama/blob/main/types/model/name.go
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gristmill.user_error import UserError

#: What tells a model of Ollama's from others: ``ollama:gemma3:12b``.
PREFIX = "ollama:"
_HOST = "registry.ollama.ai"
_NAMESPACE = "library"
_TAG = "latest"
_PARTS = {
    "host": re.compile(r"\w[\w.:-]{0,349}", re.ASCII),
    "namespace": re.compile(r"\w[\w-]{0,79}", re.ASCII),
    "model": re.compile(r"\w[\w.-]{0,79}", re.ASCII),
    "tag": re.compile(r"\w[\w.-]{0,79}", re.ASCII),
}


class OllamaName(NamedTuple):
    """No part begins with a dot or holds a slash, so that its path stays in Ollama's folder."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def path(self) -> str:
        """Of the manifest, below the folder of manifests."""
        return "/".join(self)

    def __str__(self) -> str:
        """As ``ollama list`` writes it."""
        if self.host.lower() != _HOST:
            return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
        if self.namespace.lower() != _NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"


def parse_name(text: str) -> OllamaName:
    """``[[host/]namespace/]model[:tag]``, what is left out being Ollama's defaults. Raises UserError."""
    rest, _, tag = text.rpartition(":") if text.rfind(":") > text.rfind("/") else (text, "", _TAG)
    *before, model = rest.split("/")
    host, namespace = _HOST, _NAMESPACE
    if len(before) == 1:
        (namespace,) = before
    elif len(before) == 2:
        host, namespace = before
    name = OllamaName(host, namespace, model, tag)
    if len(before) > 2 or not is_name(name):
        raise UserError(
            f"'{text}' is no name of an Ollama model: write it as 'ollama list' does, such as {PREFIX}gemma3:12b or "
            f"{PREFIX}hf.co/organisation/repository:Q4_K_M."
        )
    return name


def is_name(name: OllamaName) -> bool:
    return all(_PARTS[part].fullmatch(text) for part, text in name._asdict().items())
