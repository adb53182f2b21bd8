"""The tokenizer of a model folder: text to token ids, and each token id to its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines.openvino.tokenizer_graph import TokenizerGraph
from gristmill.models.extra import require


class Vocabulary:
    """``token_bytes[i]`` is what token ``i`` adds to the text; empty for special tokens. A token may hold part of
    a character, so bytes are joined before they are decoded. ``longest_token`` is the length in bytes of the longest
    one, special or not."""

    def __init__(self, folder: Path) -> None:
        facts = require("openvino_genai").Tokenizer(str(folder))
        self._graph = TokenizerGraph(folder)
        pieces, special = _read_tokens(folder)
        self._pieces = pieces
        self.special = special
        self.token_bytes = [b"" if index in special else piece for index, piece in enumerate(pieces)]
        self.longest_token = max(map(len, pieces))
        self.chat_template: str = facts.get_original_chat_template()
        self.bos_token: str = facts.get_bos_token()
        self.eos_token: str = facts.get_eos_token()
        self.eos_token_id: int = facts.get_eos_token_id()

    @property
    def size(self) -> int:
        return len(self.token_bytes)

    @property
    def special_texts(self) -> list[str]:
        """Texts that are always tokens of their own."""
        return [self._pieces[token].decode("utf-8", "replace") for token in sorted(self.special)]

    def special_text(self, token: int) -> bytes:
        """How the vocabulary spells a token, special or not ("<|im_end|>")."""
        return self._pieces[token]

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """All of the text's tokens, however many. ``special_tokens``: add what the model wants around a text (a chat
        template has it already). Safe from several threads. Raises UnicodeEncodeError for a lone surrogate."""
        return self._graph.encode(text.encode(), special_tokens)


def _read_tokens(folder: Path) -> tuple[list[bytes], frozenset[int]]:
    """From the detokenizer's own table; its Python face gives text only, not the bytes of a split character."""
    ov = require("openvino")
    core = ov.Core()
    core.add_extension(str(require("openvino_tokenizers")._ext_path))
    model = core.read_model(folder / "openvino_detokenizer.xml")
    decoder = next(node for node in model.get_ordered_ops() if node.get_type_name() == "VocabDecoder")
    sources = [decoder.input_value(index).get_node() for index in range(len(decoder.inputs()))]
    begins, ends, chars = (np.array(node.data) for node in sources[1:4])
    skipped = [int(i) for i in _constants_above(sources[4])] if len(sources) > 4 else []
    blob = chars.tobytes()
    pieces = [blob[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    # SentencePiece spells a space as U+2581 and a raw byte as <0x0A>; byte-level vocabularies hold bytes as they are.
    if any(piece.startswith("▁".encode()) for piece in pieces):
        pieces = [_from_sentencepiece(piece) for piece in pieces]
    return pieces, frozenset(skipped)


def _constants_above(node: Any) -> list[int]:
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    values: list[int] = np.array(node.data).reshape(-1).tolist()
    return values


def _from_sentencepiece(piece: bytes) -> bytes:
    if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁".encode(), b" ")
