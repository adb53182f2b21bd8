"""A tokenizer without its model: to count the tokens of many prompts exactly, before anything runs."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.engines.openvino.prompt_tokens import PromptTokens
from gristmill.engines.openvino.text_cache import TextCache
from gristmill.engines.openvino.tokenizer_file import TokenizerFile
from gristmill.models.locate import locate
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.engines.openvino.vocabulary import Vocabulary

#: Characters of segments remembered: of rows that share a rubric, all but the last.
_KNOWN_CHARACTERS = 4 * 2**20
#: Texts that are encoded both ways, to see that the ways agree.
_CHECKED_TEXTS = 32


def open_tokenizer(name: str) -> PromptTokens:
    """``name`` is a ``tokenizer.json``, or a model of the embedded engine. Raises UserError."""
    path = Path(name)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(f"There is no tokenizer file {path}.")
        return PromptTokens(SegmentEncoder(TokenizerFile(path)))
    from gristmill.engines.openvino.prepare import prepare
    from gristmill.engines.openvino.vocabulary import Vocabulary

    return PromptTokens(SegmentEncoder(Vocabulary(prepare(locate(name), "f16").folder)))


class SegmentEncoder:
    """Encodes a text segment by segment between its special tokens, and each distinct segment once.

    That gives the same tokens wherever a tokenizer takes special tokens out of a text first, which most do. The first
    texts are encoded as a whole, too; once they differ, everything is.
    """

    def __init__(self, encoder: TokenizerFile | Vocabulary) -> None:
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
