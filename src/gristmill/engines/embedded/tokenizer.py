"""Tokenizers: what the engine asks of one, those of ``tokenizer.json`` files, and each text encoded once."""

from __future__ import annotations

import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gristmill.extras import require
from gristmill.user_error import UserError

T = TypeVar("T")


class TextCache(Generic[T]):
    """``cache(text)`` is ``make(text)``, called anew only where it is not kept. Safe from several threads, which may
    make the same thing at the same time.

    Bounded by the length of the texts rather than by their number, as one text may be a megabyte.
    """

    def __init__(self, make: Callable[[str], T], characters: int) -> None:
        self._make = make
        self._room = characters
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> T:
        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
        made = self._make(text)
        with self._lock:
            if text not in self._kept:
                self._kept[text] = made
                self._room -= _size(text)
            while self._room < 0:
                oldest, _ = self._kept.popitem(last=False)
                self._room += _size(oldest)
        return made


def _size(text: str) -> int:
    # A short text costs what its entry does.
    return len(text) + 64


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
        self.special_texts: list[str] = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]

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


#: Characters of segments remembered: of rows that share a rubric, all but the last.
_KNOWN_CHARACTERS = 4 * 2**20
#: Texts that are encoded both ways, to see that the ways agree.
_CHECKED_TEXTS = 32


class TextEncoder(Protocol):
    """A tokenizer with what chat templates need; ``chat_template`` is empty where there is none, ``size`` the number
    of token ids."""

    chat_template: str
    bos_token: str
    eos_token: str

    @property
    def size(self) -> int: ...

    @property
    def longest_token(self) -> int:
        """Length of the longest token, in bytes."""
        ...

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """``special_tokens``: add what the model wants around a text (a chat template has it already)."""
        ...


class SpecialTextEncoder(TextEncoder, Protocol):
    """``special_texts`` are always tokens of their own."""

    @property
    def special_texts(self) -> list[str]: ...


class SegmentEncoder:
    """Encodes a text segment by segment between its special tokens, and each distinct segment once.

    That gives the same tokens wherever a tokenizer takes special tokens out of a text first, which most do. The first
    texts are encoded as a whole, too; once they differ, everything is.
    """

    def __init__(self, encoder: SpecialTextEncoder) -> None:
        self._encoder = encoder
        self.chat_template = encoder.chat_template
        self.bos_token = encoder.bos_token
        self.eos_token = encoder.eos_token
        # The longest first: one may begin with another.
        texts = sorted(filter(None, encoder.special_texts), key=len, reverse=True)
        self._between = re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None
        self._segment = TextCache(functools.partial(encoder.encode, special_tokens=False), _KNOWN_CHARACTERS)
        self._to_check = _CHECKED_TEXTS

    @property
    def size(self) -> int:
        return self._encoder.size

    @property
    def longest_token(self) -> int:
        return self._encoder.longest_token

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        if special_tokens or self._between is None:
            return self._encoder.encode(text, special_tokens)
        tokens = [token for segment in self._between.split(text) if segment for token in self._segment(segment)]
        if self._to_check:
            self._to_check -= 1
            whole = self._encoder.encode(text, special_tokens)
            if whole != tokens:
                self._between = None
                return whole
        return tokens
