"""A tokenizer whose tokens are bytes."""

from __future__ import annotations


class ByteVocabulary:
    """Token 0 ends an answer; it and 1, which begins a text, are special."""

    bos_token, eos_token = "<bos>", "<eos>"
    size = 256
    longest_token = 5
    special = frozenset({0, 1})
    special_texts = (bos_token, eos_token)

    def __init__(self, chat_template: str = "") -> None:
        self.chat_template = chat_template
        self.token_bytes = [b"" if token in self.special else bytes([token]) for token in range(256)]

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        plain = [token for part in text.split("<bos>") for token in (1, *part.encode())][1:]
        return [1, *plain] if special_tokens else plain

    def special_text(self, token: int) -> bytes:
        return (b"<eos>", b"<bos>")[token] if token in self.special else bytes([token])
