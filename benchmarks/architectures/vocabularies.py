"""Small tokenizers of the kinds that model families use, trained on this project's own texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_SIZE = 1000
#: How Llama 3, and with \p{N} alone Qwen, split a text.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _texts() -> list[str]:
    return [file.read_text() for file in sorted(_DOCS.rglob("*.md"))]


def byte_level(special: list[str], digits: str, bos: str | None) -> Any:
    """As Llama 3 and Qwen: bytes as characters. ``digits`` is the pattern of one group of digits."""
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=bos is not None))
    split = pre_tokenizers.Split(tokenizers.Regex(_SPLIT.replace("DIGITS", digits)), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    if bos is None:
        made.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=_SIZE, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(_texts(), trainer)
    made.add_special_tokens([tokenizers.AddedToken(token, normalized=False, special=True) for token in special])
    return _beginning_with(made, bos)


def sentencepiece(special: list[str], first: list[str], prepend: bool, bos: str | None, size: int = _SIZE) -> Any:
    """As Gemma, Mistral and Phi 3: spaces as U+2581, bytes of what is unknown as <0x0A>. ``first`` are the tokens
    before the bytes; ``prepend``: a space before the text, as Mistral and Phi 3 have it."""
    marks = [normalizers.Prepend("▁")] if prepend else []
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=[*first, *raw],
        limit_alphabet=min(100, (size - 260) // 2),
        max_token_length=16,
    )
    space = "" if prepend else " "
    made.train_from_iterator((space + word for text in _texts() for word in text.split()), trainer)
    # The bytes are plain tokens; the trainer knows no other way to put them first.
    made = _with_model(made, made.model)
    marked = [tokenizers.AddedToken(token, normalized=False, special=True) for token in [*first, *special]]
    made.add_special_tokens(marked)
    return _beginning_with(made, bos)


def _with_model(old: Any, model: Any) -> Any:
    """A tokenizer with the model and without the added tokens."""
    made = tokenizers.Tokenizer(model)
    made.normalizer, made.decoder = old.normalizer, old.decoder
    return made


def _beginning_with(tokenizer: Any, bos: str | None) -> Any:
    if bos is not None:
        token = tokenizer.token_to_id(bos)
        begin = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, token)]
        )
        tokenizer.post_processor = begin
    return tokenizer
