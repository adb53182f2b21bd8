"""Files in Ollama's own layout, made of files that llama.cpp reads: its rules backwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

#: What Ollama's converter does not write, or calls otherwise.
_LEFT_OUT = frozenset(
    {"gemma3.attention.layer_norm_rms_epsilon", "gemma3.rope.freq_base", "gemma3.rope.freq_base_swa",
     "gemma3.rope.scaling.type", "gemma3.rope.scaling.factor", "tokenizer.ggml.add_space_prefix",
     "tokenizer.chat_template", "gpt-oss.expert_feed_forward_length", "tokenizer.ggml.pre"}
)  # fmt: skip
_PICTURES = {
    "gemma3.mm.tokens_per_image": 256,
    "gemma3.vision.block_count": 1,
    "gemma3.vision.image_size": 896,
    "gemma3.vision.patch_size": 14,
}
_EXTRA_TOKENS = ["<image_soft_token>", "<more>"]


def in_ollamas_layout(source: Path, target: Path, pictures: bool = True, extra: str = "") -> Path:
    """A gemma3 or gpt-oss file as Ollama's library has them. ``extra``: a tensor that nobody knows."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    named = "gptoss" if architecture == "gpt-oss" else architecture
    writer = gguf.GGUFWriter(str(target), named)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in _LEFT_OUT:
            continue
        _add(writer, key.replace("gpt-oss.", "gptoss."), field, pictures)
    if pictures:
        for key, number in _PICTURES.items():
            writer.add_uint32(key, number)
        writer.add_float32("gemma3.rope.local.freq_base", 10_000.0)
        writer.add_bool("tokenizer.ggml.add_padding_token", False)
        # Before the others' data, between them and behind them; one of a size that is padded.
        writer.add_tensor("mm.mm_input_projection.weight", np.full((3, 5), 7.0, np.float16))
    half = len(reader.tensors) // 2
    for number, tensor in enumerate(reader.tensors):
        if pictures and number == half:
            writer.add_tensor("v.patch_embedding.weight", np.full((7, 2, 2), 9.0, np.float32))
        writer.add_tensor(_name(tensor.name, named), tensor.data, raw_dtype=tensor.tensor_type)
    if pictures:
        writer.add_tensor("v.blk.0.attn_q.weight", np.ones(11, np.float32))
    if extra:
        writer.add_tensor(extra, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add(writer: gguf.GGUFWriter, key: str, field: Any, pictures: bool) -> None:
    kind = field.types[0]
    contents = field.contents()
    if pictures and kind == gguf.GGUFValueType.ARRAY:
        more = {
            "tokenizer.ggml.tokens": _EXTRA_TOKENS,
            "tokenizer.ggml.scores": [0.0, 0.0],
            "tokenizer.ggml.token_type": [3, 3],
        }
        contents = [*contents, *more.get(key, [])]
    inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(key, contents, kind, sub_type=inner)


def _name(name: str, architecture: str) -> str:
    if architecture != "gptoss":
        return name
    name = name.replace(".attn_output.", ".attn_out.").replace(".post_attention_norm.", ".ffn_norm.")
    return name.removesuffix(".weight") if name.endswith(".attn_sinks.weight") else name
