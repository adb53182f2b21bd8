"""A ``tokenizer.json``, with the chat template that lies beside it as transformers saves it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec

from gristmill.models.extra import require
from gristmill.user_error import UserError


class TokenizerFile:
    """Encodes as the file says. ``special_texts`` are always tokens of their own. Raises UserError."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = require("tokenizers").Tokenizer.from_file(str(path))
        except UserError:
            raise
        except Exception as error:
            # The library raises plain exceptions.
            raise UserError(f"The tokenizer file {path} cannot be read: {error}.") from None
        # Either may be part of the file; a prompt is counted whole and without anything around it.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = _config(path.with_name("tokenizer_config.json"))
        template = path.with_name("chat_template.jinja")
        found = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template", "")
        self.chat_template: str = _template_text(found)
        self.bos_token = _token_text(config.get("bos_token"))
        self.eos_token = _token_text(config.get("eos_token"))
        self.special_texts = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @functools.cached_property
    def longest_token(self) -> int:
        """In bytes, or more: byte-level vocabularies spell a byte as a character of up to two."""
        return max(len(token.encode()) for token in self._tokenizer.get_vocab())

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=special_tokens).ids
        return tokens


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UserError(f"The file {path} cannot be read: {error}.") from None


def _template_text(found: Any) -> str:
    """One template, or the default of several."""
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def _token_text(found: Any) -> str:
    text = found.get("content") if isinstance(found, dict) else found
    return text if isinstance(text, str) else ""
