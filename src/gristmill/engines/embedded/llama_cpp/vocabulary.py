"""A model's tokenizer as llama.cpp has it: text to token ids, and each token id to its bytes."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary, load_library
from gristmill.user_error import UserError

#: Attributes of a token (``llama_token_attr``): what no text is made of, and what may end an answer.
_UNKNOWN, _UNUSED, _CONTROL, _USER_DEFINED = 1, 2, 8, 16
_LONGEST_PIECE = 4096


class LlamaVocabulary:
    """Safe to use from several threads. ``ends`` are the tokens that end an answer, as llama.cpp knows them by their
    ids in the file and by their texts ("<end_of_turn>")."""

    def __init__(self, library: LlamaLibrary, model: Any, chat_template: str | None = None) -> None:
        """``model`` must outlive this; it may be one without weights. ``chat_template``: instead of the file's own."""
        self._library = library
        self._model = model
        self._vocabulary = library.llama_model_get_vocab(model)
        self._attributes = np.array(
            [library.llama_vocab_get_attr(self._vocabulary, token) for token in range(self._count())], np.int32
        )
        self.token_bytes = self._pieces()
        control = self._attributes & (_CONTROL | _UNKNOWN) != 0
        self.special = frozenset(token for token, piece in enumerate(self.token_bytes) if control[token] or not piece)
        self.ends = frozenset(
            int(token)
            for token in np.flatnonzero(self._attributes & (_CONTROL | _USER_DEFINED | _UNKNOWN | _UNUSED))
            if library.llama_vocab_is_eog(self._vocabulary, int(token))
        )
        self._special_texts = {token: self._text(token) for token in self.special | self.ends}
        self.longest_token = max(map(len, [*self.token_bytes, *self._special_texts.values()]))
        own = library.llama_model_chat_template(model, None)
        self.chat_template = chat_template or (own.decode("utf-8", "replace") if own else "")
        self.bos_token = self._named(library.llama_vocab_bos(self._vocabulary))
        self.eos_token = self._named(library.llama_vocab_eos(self._vocabulary))

    @property
    def size(self) -> int:
        return len(self.token_bytes)

    @property
    def special_texts(self) -> list[str]:
        """Texts that are always tokens of their own."""
        control = np.flatnonzero(self._attributes & _CONTROL).tolist()
        return [self._special_texts[token].decode("utf-8", "replace") for token in control]

    def special_text(self, token: int) -> bytes:
        """How the vocabulary spells a token, special or not ("<|im_end|>")."""
        return self._special_texts.get(token) or self.token_bytes[token]

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """All of the text's tokens, however many. ``special_tokens``: add what the model wants around a text (a chat
        template has it already). Raises UnicodeEncodeError for a lone surrogate."""
        data = text.encode()
        # A byte is a token at most; what the model wants around comes besides.
        room = len(data) + 16
        while True:
            tokens = np.empty(room, np.int32)
            found = self._library.llama_tokenize(
                self._vocabulary, data, len(data), tokens.ctypes.data, room, special_tokens, True
            )
            if found >= 0:
                result: list[int] = tokens[:found].tolist()
                return result
            if -found <= room:
                raise RuntimeError(f"llama.cpp cannot tokenize a text of {len(data)} bytes ({found})")
            room = -found

    def _count(self) -> int:
        count: int = self._library.llama_vocab_n_tokens(self._vocabulary)
        return count

    def _pieces(self) -> list[bytes]:
        """What each token adds to a text: nothing for control tokens."""
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
        to_piece, vocabulary = self._library.llama_token_to_piece, self._vocabulary
        pieces = []
        for token in range(self._count()):
            length = to_piece(vocabulary, token, buffer, _LONGEST_PIECE, 0, False)
            pieces.append(buffer.raw[:length] if length > 0 else b"")
        return pieces

    def _text(self, token: int) -> bytes:
        text: bytes | None = self._library.llama_vocab_get_text(self._vocabulary, token)
        return text or b""

    def _named(self, token: int) -> str:
        """Empty for a token that the vocabulary does not have."""
        return self._text(token).decode("utf-8", "replace") if 0 <= token < self.size else ""


def open_vocabulary(path: Path) -> LlamaVocabulary:
    """The tokenizer of a GGUF file, without the model's weights. Raises UserError."""
    library = load_library()
    params = library.llama_model_default_params()
    params.vocab_only = True
    library.log.forget()
    model = library.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise UserError(
            f"{library} cannot read the tokenizer of '{path}': {library.log.reason() or 'it says no more'}."
        )
    return LlamaVocabulary(library, model)
